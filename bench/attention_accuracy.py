"""What attention's codes of weights cost by themselves on SmolLM2-135M-Instruct, and int8 heads beside them.

    python -m bench.attention_accuracy [--tokens 2048] [--text FILE]

The float model reads one window three times: as it is, with attention's powers of two and 14-bit codes of
weights (formats/attention_spec.py) over float queries, keys and values, and with these rounded to int8 but
weights as they are. Nothing else is rounded, so that nothing else is measured. Prints the divergence from
the first reading over the positions from 256 on, in nats a token. Writes
bench/results/attention_accuracy.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.models import UnavailableError, alice, smollm2
from bench.rounded_heads import rounded
from rockledge.errors import RockledgeError, UsageError
from rockledge.formats.attention_spec import LOG2_E, MOST_CODE, SPLIT, powers_of_two
from rockledge.model.block import Attention, decoder
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.float_model.forward import (
    Attend,
    attention,
    block_forward,
    block_weights,
    embed_tokens,
    final_logits,
)

RESULTS = Path(__file__).parent / "results" / "attention_accuracy.json"
FIRST = 256
"""Positions before it have little to attend to."""


Read = Callable[[Attend | None], Tensor]
"""Log probabilities float32 [positions from FIRST on, vocab] with another attention, or the float model's."""


def coded(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention whose weights are codes, head by head; only the order of its sums is not specified."""
    out = torch.empty_like(q)
    unseen = torch.triu(torch.full((q.shape[2], q.shape[2]), -torch.inf), 1)
    step = v.abs().amax(-1).clamp_min(1e-30) / 127
    for head in range(q.shape[1]):
        scores = (q[0, head] @ k[0, head].T) * (module.scale * float(LOG2_E)) + unseen
        powers = torch.from_numpy(powers_of_two((scores - scores.amax(-1, keepdim=True)).numpy()))
        weights = powers * step[0, head]
        for part in weights.split(SPLIT, dim=-1):
            unit = part.amax(-1, keepdim=True) / MOST_CODE
            part.copy_(torch.where(unit > 0, torch.round(part / unit) * unit, 0.0))
        out[0, head] = (weights / step[0, head]) @ v[0, head] / powers.sum(-1, keepdim=True)
    return out


def int8_heads(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over heads rounded as queries and the cache have them."""
    return attention(module, rounded(q), rounded(k), rounded(v))


WAYS: dict[str, Attend] = {"weights as codes": coded, "int8 heads": int8_heads}


def log_probabilities(checkpoint: Checkpoint, tokens: Sequence[int], attend: Attend | None) -> Tensor:
    """float32 [positions from FIRST on, vocab]."""
    tree = decoder(checkpoint.config)
    with torch.no_grad():
        x = embed_tokens(checkpoint, torch.tensor([tokens]))
        for layer in range(checkpoint.config.layers):
            x = block_forward(block_weights(checkpoint, layer), x, tree, layer, attend=attend)
        return final_logits(checkpoint, x[:, FIRST:])[0].log_softmax(-1)


def costs(read: Read) -> dict[str, dict[str, float]]:
    """The divergence of each way."""
    exact = read(None)
    return {name: divergence(exact, read(attend)) for name, attend in WAYS.items()}


def divergence(exact: Tensor, other: Tensor) -> dict[str, float]:
    """Mean and largest divergence, and the share of positions with the same top token."""
    # In float64: the smallest of them are sums of differences that fp32 does not hold.
    rows = ((a.double(), b.double()) for a, b in zip(exact, other, strict=True))
    nats = np.array([float((a.exp() * (a - b)).sum()) for a, b in rows])
    same = float((exact.argmax(-1) == other.argmax(-1)).double().mean())
    return {"mean": float(nats.mean()), "largest": float(nats.max()), "same top": same}


def window_of(text: Path | None, count: int) -> tuple[str, Read]:
    """The name of a text, None for Alice in Wonderland, and what reads its first `count` tokens. Raises
    UnavailableError, and UsageError for a text that is too short."""
    checkpoint, chosen = open_checkpoint(smollm2()), text or alice()
    tokenizer = Tokenizer.from_files(checkpoint.files())
    beginning = chosen.read_text(encoding="utf-8")[: 8 * count]
    tokens = tokenizer.encode(beginning, bos=False)[:count]
    if len(tokens) < count:
        raise UsageError(f"{chosen} has {len(tokens)} tokens, expected {count}; give a longer text")
    return chosen.name, lambda attend: log_probabilities(checkpoint, tokens, attend)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; 1 when the model is not to be had or the text is too short."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.attention_accuracy", description="attention's codes"
    )
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--text", type=Path, help="default: Alice in Wonderland")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        window, read = window_of(chosen.text, chosen.tokens)
        found = costs(read)
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    result = {"model": "SmolLM2-135M-Instruct", "text": window, "tokens": chosen.tokens, "ways": found}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{'nats a token':<20}{'mean':>12}{'largest':>12}{'same top':>10}")
    for name, row in found.items():
        print(f"{name:<20}{row['mean']:12.2e}{row['largest']:12.2e}{row['same top']:10.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
