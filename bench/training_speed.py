"""Tokens a second and memory of `rockledge distill` for a student of SmolLM2-135M's shape, with and without
activation checkpointing.

    python -m bench.training_speed [--sequence 512] [--steps 1]

The teacher has the same shape and is asked in every step, as when a model that was pruned is taught by what
it was. Weights and tokens are random, the trainer is the real one. Memory is that of the weights and of all
that PyTorch allocates in two profiled steps; speed is that of further steps without the profiler, the first
left out. It prints rows for docs/distil.md, and how busy the machine was. "system" is the part of the
processor time that the system took: page faults, unless MALLOC_MMAP_MAX_=0 and a MALLOC_TRIM_THRESHOLD_ are
set.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.distil_memory import allocated, made_pair, steps
from rockledge.distillation.settings import settings
from rockledge.model.config import ModelConfig
from rockledge.model.known_shapes import KNOWN_SHAPES

SHAPE = KNOWN_SHAPES["smollm2-135m"].config


@dataclass(frozen=True)
class Row:
    """With or without checkpointing: the most bytes, tokens a second, and the part of the processor time
    that the system took, for getting memory above all."""

    checkpointing: bool
    peak: int
    tokens_per_second: float
    system: float


def measured(config: ModelConfig, *, checkpointing: bool, sequence: int, count: int) -> Row:
    """Two profiled steps of one sequence each, then 1 + `count` timed ones."""
    asked = settings(
        {
            "checkpointing": checkpointing,
            "sequence": sequence,
            "batch": 1,
            "tokens": sequence * (count + 1),
            "save_every": 1000,
        }
    )
    learning, teaching = made_pair(config, config, asked)
    peak = allocated(learning, teaching, asked, 2)
    ended: list[tuple[float, os.times_result]] = []
    steps(learning, teaching, asked, count + 1, lambda *_: ended.append((time.monotonic(), os.times())))
    (began, before), (end, after) = ended[0], ended[-1]
    user, system = after.user - before.user, after.system - before.system
    return Row(checkpointing, peak, count * sequence / (end - began), system / (user + system))


def lines(rows: Sequence[Row]) -> list[str]:
    """The table; memory in MB."""
    found = ["| checkpointing | peak, MB | tokens/s | system |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        said = "yes" if row.checkpointing else "no"
        speed = f"{row.tokens_per_second:.1f} | {row.system:.0%}"
        found.append(f"| {said} | {row.peak / 1e6:.0f} | {speed} |")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both ways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1)
    args = parser.parse_args(arguments)
    busy = os.getloadavg()[0]
    rows = [
        measured(SHAPE, checkpointing=checkpointing, sequence=args.sequence, count=args.steps)
        for checkpointing in (False, True)
    ]
    print("\n".join(lines(rows)))
    print(
        f"\nSequences of {args.sequence} tokens, one at a time, float32, {torch.get_num_threads()} threads; "
        f"the machine's load was {busy:.1f} before, with {os.cpu_count()} processors."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
