"""What other codes of attention's weights would cost that the NPU could multiply, on SmolLM2-135M-Instruct.

    python -m bench.npu_attention [--tokens 2048] [--text FILE]

Attention on the NPU has the codes of the CPU (formats/npu_attention_spec.py), so it costs nothing. The float
model reads one window, with int8 queries, keys and values and these codes as on the CPU, then with others:
8 bits (one int8 plane) and 16 bits (two), with one scale for each split of 512 positions or one for all
positions of a row. Prints the divergence from the CPU's way over the positions from 256 on, in nats a token,
and how often the likeliest token stays; a goal is at most 0.003 nats and at least 98 %. Any change flips
roundings of later layers: that alone is some 9e-4 nats. Writes bench/results/npu_attention.json.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.attention_accuracy import FIRST, Read, coded_with, divergence, window_of
from bench.models import UnavailableError
from bench.rounded_heads import rounded
from rockledge.errors import RockledgeError
from rockledge.formats.attention_spec import MOST_CODE, SPLIT
from rockledge.model.block import Attention
from rockledge.quantization.float_model.forward import Attend

RESULTS = Path(__file__).parent / "results" / "npu_attention.json"
ONE_PLANE = 127
TWO_PLANES = 127 * 256 + 127
"""The largest codes of one int8 plane, and of two, the low one with a sign."""
GOAL_NATS, GOAL_SAME = 0.003, 0.98


def way(most_code: int, span: int | None) -> Attend:
    """Attention of int8 heads with codes up to `most_code` of the largest weight among `span` positions, or
    among all."""

    def attend(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return coded_with(module, rounded(q), rounded(k), rounded(v), most_code=most_code, span=span)

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
