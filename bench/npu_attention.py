"""What other codes of attention's weights would cost that the NPU could multiply, on SmolLM2-135M-Instruct.

    python -m bench.npu_attention [--tokens 2048] [--text FILE]

Attention on the NPU has the codes of the CPU (formats/npu_attention_spec.py), so it costs nothing. The float
model reads one window, with int8 queries, keys and values and these codes as on the CPU, then with others:
8 bits (one int8 plane) and 16 bits (two), with one scale for each split of 512 positions or one for all
positions of a row. Prints the divergence from the CPU's way over the positions from 256 on, in nats a token,
and how often the likeliest token stays; a goal is at most 0.003 nats and at least 98 %. Any change flips
roundings of later layers, which is most of what the finest codes cost. Writes
bench/results/npu_attention.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.attention_accuracy import FIRST, Read, divergence, window_of
from bench.models import UnavailableError
from bench.rounded_heads import rounded
from rockledge.errors import RockledgeError
from rockledge.formats.attention_spec import LOG2_E, MOST_CODE, SPLIT
from rockledge.model.block import Attention
from rockledge.quantization.float_model.forward import Attend

RESULTS = Path(__file__).parent / "results" / "npu_attention.json"
ONE_PLANE = 127
TWO_PLANES = 127 * 256 + 127
"""The largest codes of one int8 plane, and of two, the low one with a sign."""
GOAL_NATS, GOAL_SAME = 0.003, 0.98


def coded(module: Attention, q: Tensor, k: Tensor, v: Tensor, most_code: int, span: int | None) -> Tensor:
    """Attention whose weights are codes up to `most_code` of the largest among `span` positions, or all; rows
    a split at a time over the positions that they see."""
    out = torch.empty_like(q)
    step = v.abs().amax(-1).clamp_min(1e-30)[0, :, None] / 127
    for begin in range(0, q.shape[2], SPLIT):
        rows = q[0, :, begin : begin + SPLIT]
        end = begin + rows.shape[1]
        scores = (rows @ k[0, :, :end].transpose(1, 2)) * (module.scale * float(LOG2_E))
        scores += torch.triu(torch.full((rows.shape[1], end), -torch.inf), begin + 1)
        powers = torch.exp2_(scores - scores.amax(-1, keepdim=True))
        total = powers.sum(-1, keepdim=True)
        weights = powers.mul_(step[..., :end])
        for part in weights.split(span or end, dim=-1):
            unit = (part.amax(-1, keepdim=True) / most_code).clamp_min_(1e-30)
            part.div_(unit).round_().mul_(unit)
        out[0, :, begin:end] = (weights / step[..., :end]) @ v[0, :, :end] / total
    return out


def way(most_code: int, span: int | None) -> Attend:
    """Attention of int8 heads with codes up to `most_code` of the largest weight among `span` positions, or
    among all."""

    def attend(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return coded(module, rounded(q), rounded(k), rounded(v), most_code, span)

    return attend


CODES: dict[str, tuple[int, int | None]] = {
    "8 bits, a scale a split": (ONE_PLANE, SPLIT),
    "8 bits, a scale a row": (ONE_PLANE, None),
    "16 bits, a scale a row": (TWO_PLANES, None),
}
CPU = (MOST_CODE, SPLIT)


def measured(read: Read) -> dict[str, dict[str, float]]:
    """By code the divergence from the CPU's codes."""
    reference = read(way(*CPU))
    return {name: divergence(reference, read(way(*codes))) for name, codes in CODES.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; 1 when the model is not to be had or the text is too short."""
    parser = argparse.ArgumentParser(prog="python -m bench.npu_attention", description="codes for the NPU")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--text", type=Path, help="default: Alice in Wonderland")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        window, read = window_of(chosen.text, chosen.tokens)
        found = measured(read)
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    result = {"model": "SmolLM2-135M-Instruct", "text": window, "tokens": chosen.tokens, "first": FIRST}
    RESULTS.write_text(json.dumps({**result, "codes": found}, indent=1) + "\n", encoding="utf-8")
    print(f"{'nats a token':<26}{'mean':>12}{'largest':>12}{'same top':>10}  goal")
    for name, row in found.items():
        met = row["mean"] <= GOAL_NATS and row["same top"] >= GOAL_SAME
        print(
            f"{name:<26}{row['mean']:12.2e}{row['largest']:12.2e}{row['same top']:10.2%}  "
            f"{'met' if met else 'missed'}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
