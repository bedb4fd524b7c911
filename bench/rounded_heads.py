"""What int8 queries, keys and values cost by themselves, as stored and as the runtime has them.

    python -m bench.rounded_heads [--model qwen2.5-coder-0.5b] [--windows 1]

The float model runs over windows of the accuracy table, once as it is, and with every head's queries and keys
(after RoPE) and values rounded as the runtime rounds them: int8, one scale a token and head. As
the runtime has them pairs are balanced, and the largest biases of keys are added to the scores in floats.
Nothing else is rounded. Prints the mean divergence and writes bench/results/rounded_heads.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from bench.accuracy_models import MODELS
from bench.accuracy_task import Task, prepare
from bench.models import UnavailableError
from rockledge.errors import RockledgeError
from rockledge.formats.key_bias import split_bias
from rockledge.quantization.float_model import forward as reference
from rockledge.quantization.steps import Steps
from rockledge.quantization.transforming.rotate import rotated

RESULTS = Path(__file__).parent / "results"
WAYS: Mapping[str, tuple[bool, bool, bool]] = {  # as the runtime; what is rounded: queries and keys, values
    "as stored": (False, True, True),
    "as stored, values only": (False, False, True),
    "as the runtime": (True, True, True),
}


def rounded(x: torch.Tensor) -> torch.Tensor:
    """`x` [..., head_dim] rounded to int8 with one scale for each head's row."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return torch.where(step > 0, torch.round(x / step) * step, 0.0)


def logits(task: Task, runtime: bool, scores: bool, values: bool) -> torch.Tensor:
    """Logits fp32 [windows, tokens, vocab]; `runtime`: balanced, large biases past the cache; `scores`:
    queries and keys are rounded."""
    checkpoint, config = task.checkpoint, task.checkpoint.config
    model = rotated(checkpoint, steps=Steps(rotate="none", balance=runtime))
    inner = torch.nn.functional.scaled_dot_product_attention
    rope = model.tree.layers[0].attends.rope
    late = torch.zeros(0)  # the large biases of the block that runs [kv_heads, head_dim]

    def round_values(role: str, x: torch.Tensor) -> torch.Tensor:
        if role != "attn.v" or not values:
            return x
        return rounded(x.unflatten(-1, (-1, config.head_dim))).flatten(-2)

    def attend(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool, scale: float
    ) -> torch.Tensor:
        queries, keys = (rounded(q), rounded(k)) if scores else (q, k)
        if len(late):
            bias = late.repeat_interleave(config.heads // config.kv_heads, 0)[:, None]
            past = reference.rotate_pairs(bias.expand(-1, k.shape[2], -1)[None], rope)
            queries, keys = torch.cat((queries, q), -1), torch.cat((keys, past.expand_as(k)), -1)
        return inner(queries, keys, v, is_causal=is_causal, scale=scale)

    with torch.no_grad(), patch.object(torch.nn.functional, "scaled_dot_product_attention", attend):
        x = reference.embed_tokens(checkpoint, torch.tensor(task.windows))
        for layer in range(config.layers):
            weights = model.block_weights(layer, online=False)
            if runtime and (bias := weights.get("attn.k.bias")) is not None:
                kept, large = map(torch.from_numpy, split_bias(bias.numpy(), config.head_dim))
                weights["attn.k.bias"], late = kept, large.view(config.kv_heads, -1)
            x = reference.block_forward(weights, x, model.tree, layer, outputs=round_values)
        return reference.final_logits(checkpoint, x)


def costs(task: Task) -> dict[str, float]:
    """Mean divergence in nats a token from the float model, by what was done to heads."""
    exact = logits(task, False, False, False).log_softmax(-1)
    found = {}
    for name, way in WAYS.items():
        other = logits(task, *way).log_softmax(-1)
        found[name] = float((exact.exp() * (exact - other)).sum(-1)[:, 1:].mean())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; 1 when the model is not to be had."""
    parser = argparse.ArgumentParser(prog="python -m bench.rounded_heads", description="int8 heads alone")
    parser.add_argument("--model", choices=sorted(MODELS), default="qwen2.5-coder-0.5b")
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        found = costs(prepare(MODELS[args.model], args.windows, args.threads))
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    target = RESULTS / "rounded_heads.json"
    kept = json.loads(target.read_text()) if target.exists() else {}
    kept[args.model] = {"windows": args.windows, "kl_mean_nats": found}
    target.write_text(json.dumps(kept, indent=1) + "\n")
    for name, kl in found.items():
        print(f"{args.model}  {name:<26}{kl:.5f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
