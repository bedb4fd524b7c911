"""What attention costs alone, after a long past and in prompts, and what it reads.

    python -m bench.attention [--kernel vnni vnni512] [--repeats 15]

Least processor time of the operation on one thread, one layer of SmolLM2-135M's shape: in milliseconds, and
in nanoseconds for each row, position and head (a score). Several kernels take turns. Keys and values are
random. Another build is measured by ROCKLEDGE_LIBRARY. Then, counted by the rule of native/attend.cpp: keys
and values that prompts of the 8B read, eight rows at a time and if every row walked by itself.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from bench.machine import Foreign
from rockledge.board.memory import TILE_ROWS
from rockledge.board.prefill import attention_bytes
from rockledge.runtime import native
from rockledge.runtime.choices import KERNELS
from rockledge.runtime.native import BufferKind, OpCode
from rockledge.runtime.native_step import Batch, Step
from rockledge.runtime.processor import this_processor
from rockledge.synth import shape_config

HEADS, KV_HEADS, HEAD_DIM, PAGE_TOKENS, CONTEXT = 9, 3, 64, 32, 4096
ROWS = 256
CASES = {
    "1 row after 2,900": [(2900, 1)],
    "64 rows after 2,900": [(2900, 64)],
    "91 rows after 2,900": [(2900, 91)],
    "a prompt of 81": [(0, 81)],
    "a prompt of 4,000": [(start, min(ROWS, 4000 - start)) for start in range(0, 4000, ROWS)],
}
"""The first position and the rows of each step."""
PROMPTS = (512, 2048, 8192)


def attention(kernel: str) -> Step:
    """A step of two operations: keys and values written, and attention."""
    inner, scale = HEADS * HEAD_DIM, HEAD_DIM**-0.5
    widths = ((HEADS + 2 * KV_HEADS) * HEAD_DIM, inner, HEADS, inner)
    kinds = (BufferKind.FLOAT, BufferKind.INT8, BufferKind.FLOAT, BufferKind.FLOAT)
    buffers = [
        native.Buffer(kind, width, slot) for slot, (kind, width) in enumerate(zip(kinds, widths, strict=True))
    ]
    turns = (1e4 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)).astype(np.float32)
    write = native.Op(
        OpCode.ROPE_KV, (0,), (1, 2), dim=(0, 0, HEAD_DIM), real=(1e-5, 1.0, scale), weight=(turns,)
    )
    attend = native.Op(OpCode.ATTENTION, (1, 2), (3,), dim=(0, 0), real=(scale,), weight=(turns,))
    pools = (native.Pool(1, CONTEXT // PAGE_TOKENS),)
    shape = native.Shape(ROWS, HEADS, KV_HEADS, HEAD_DIM, PAGE_TOKENS, CONTEXT, pools)
    return Step(native.Program([write, attend], [], buffers, shape, kernel=kernel), threads=1)


def batch(first: int, rows: int) -> Batch:
    """Rows of one sequence from position `first` on."""
    zeros, positions = np.zeros(rows, np.int32), np.arange(first, first + rows, dtype=np.int32)
    return Batch(zeros, positions, zeros, np.arange(CONTEXT // PAGE_TOKENS, dtype=np.int32)[None])


def least_seconds(steps: Sequence[Step], parts: Sequence[tuple[int, int]], repeats: int) -> list[float]:
    """Processor time of attention over all `parts`, the least of each, of every step; they take turns."""
    least = np.full((len(steps), len(parts)), np.inf)
    for _ in range(repeats):
        for number, part in enumerate(parts):
            for which, step in enumerate(steps):
                step.run(batch(*part), first=0, last=1)
                run = step.prepare(batch(*part), None, 1, 2)
                begun = time.thread_time()
                run()
                least[which, number] = min(least[which, number], time.thread_time() - begun)
    return [float(seconds) for seconds in least.sum(axis=1)]


def filled(kernel: str) -> Step:
    """A step with random keys and values at all positions."""
    step = attention(kernel)
    step.buffer(0)[:] = np.random.default_rng(0).normal(0, 1.5, step.buffer(0).shape)
    for start in range(0, CONTEXT, ROWS):
        step.run(batch(start, ROWS), first=0, last=1)
    return step


def read_by_prompts() -> list[str]:
    """A table of the gigabytes that prompts of the 8B read in all layers."""
    shape = shape_config("8b")
    lines = [f"{'8B, GB of keys and values read':<34}{'8 rows at a time':>18}{'row by row':>14}"]
    for tokens in PROMPTS:
        counts = [shape.layers * attention_bytes(shape, tokens, 0, together=rows) for rows in (TILE_ROWS, 1)]
        lines.append(f"{tokens:<34,}{counts[0] / 1e9:18.1f}{counts[1] / 1e9:14.1f}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.attention", description="attention alone")
    parser.add_argument("--kernel", nargs="+", default=["auto"], choices=sorted(KERNELS))
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args(arguments)
    foreign = Foreign()
    steps = [filled(kernel) for kernel in chosen.kernel]
    heads = "".join(f"{step.program.kernel + ', ms':>16}{'ns a score':>12}" for step in steps)
    print(f"{this_processor().name_and_family}, 1 thread\n{'':<24}{heads}")
    for name, parts in CASES.items():
        pairs = HEADS * sum(position + 1 for first, rows in parts for position in range(first, first + rows))
        found = least_seconds(steps, parts, chosen.repeats)
        print(f"{name:<24}" + "".join(f"{1e3 * least:16.3f}{1e9 * least / pairs:12.3f}" for least in found))
    for step in steps:
        step.close()
    print(f"others took {foreign.share():.0%} of the machine")
    print("\n".join(["", *read_by_prompts()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
