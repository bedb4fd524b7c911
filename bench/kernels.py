"""How fast the native linears run: GB/s of packed weights at one row (decode), GMAC/s at many (prefill).

    python -m bench.kernels [--threads 1 2] [--bits 2 3 4 8] [--rows 1 4 64 512] [--shape 1536x576 ...]

Linears over random weights; up to four rows enough of them that they come from memory, not from a cache.
Several kernels take turns. The best of several runs counts, in CPU seconds of the process divided by the
threads, so that other jobs on the machine disturb little. Prints a table; --json prints one object instead.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bench.machine import Foreign
from rockledge.formats.bands import TABLES, Band, packed_bytes, stream_bytes
from rockledge.runtime import native
from rockledge.runtime.native_step import Batch, Step
from rockledge.runtime.processor import this_processor

COLD_BYTES = 96 << 20  # more than a last-level cache holds
SECONDS = 0.4


def _aligned(size: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    raw = generator.integers(0, 256, size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def _layers(rows: int, cols: int, bits: int, count: int) -> list[native.Band]:
    generator = np.random.default_rng(0)
    codes_bytes, index_bytes = stream_bytes([Band(0, rows, bits)], cols)
    tables = generator.integers(-127, 128, (TABLES, 16)).astype(np.int8)
    scale = np.full(rows, 0.01, np.float32)
    return [
        native.Band(
            codes=_aligned(codes_bytes, generator),
            index=_aligned(index_bytes, generator) if bits < 8 else None,
            tables=tables if bits < 8 else None,
            scale=scale,
            bias=None,
            rows=rows,
            cols=cols,
            bits=bits,
            out_column=0,
        )
        for _ in range(count)
    ]


def measure(
    out: int, cols: int, bits: int, rows: int, threads: int, kernels: Sequence[str]
) -> list[dict[str, float]]:
    """Of each kernel: seconds of one linear of `out` x `cols` weights at `rows` rows, and the rates."""
    weight_bytes = packed_bytes(out, cols, [Band(0, out, bits)])
    count = max(1, COLD_BYTES // weight_bytes) if rows <= 4 else 1
    bands = _layers(out, cols, bits, count)
    ops = [native.Op(native.OpCode.LINEAR, (0, 1), (2,), first_band=i, bands=1) for i in range(count)]
    buffers = [
        native.Buffer(native.BufferKind.INT8, cols, 0),
        native.Buffer(native.BufferKind.FLOAT, 1, 1),
        native.Buffer(native.BufferKind.FLOAT, out, 2),
    ]
    shape = native.Shape(rows, heads=1, kv_heads=1, head_dim=8, page_tokens=16, context=0, pools=())
    steps = [
        Step(native.Program(ops, bands, buffers, shape, kernel=name), threads=threads) for name in kernels
    ]
    zeros = np.zeros(rows, np.int32)
    one_batch = Batch(zeros, np.arange(rows, dtype=np.int32), zeros, np.zeros((1, 1), np.int32))
    runs = []
    for step in steps:
        step.buffer(0)[:] = np.random.default_rng(1).integers(-127, 128, step.buffer(0).shape)
        step.buffer(1)[:] = 0.01
        runs.append(step.prepare(one_batch))
    best_cpu, best_wall = [float("inf")] * len(runs), [float("inf")] * len(runs)
    until = time.perf_counter() + SECONDS * len(runs)
    while time.perf_counter() < until or float("inf") in best_wall:
        for which, run in enumerate(runs):
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            best_cpu[which] = min(best_cpu[which], (time.process_time() - cpu) / threads)
            best_wall[which] = min(best_wall[which], time.perf_counter() - wall)
    for step in steps:
        step.close()
    return [
        {
            "wall_us": wall / count * 1e6,
            "cpu_us": cpu / count * 1e6,
            "weight_gb_s": weight_bytes * count / cpu / 1e9,
            "gmac_s": out * cols * rows * count / cpu / 1e9,
        }
        for cpu, wall in zip(best_cpu, best_wall, strict=True)
    ]


def _shape(text: str) -> tuple[int, int]:
    out, cols = text.lower().split("x")
    return int(out), int(cols)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every combination asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.kernels", description="speed of the native linears"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 64, 512])
    parser.add_argument("--shape", type=_shape, nargs="+", default=[(3072, 576), (576, 1536), (2048, 2048)])
    parser.add_argument("--kernel", nargs="+", default=["auto"])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    foreign, results = Foreign(), []
    if not chosen.json:
        print(this_processor().name_and_family)
    cases = product(chosen.shape, chosen.bits, chosen.rows, chosen.threads)
    for (out, cols), bits, rows, threads in cases:
        for kernel, found in zip(
            chosen.kernel, measure(out, cols, bits, rows, threads, chosen.kernel), strict=True
        ):
            keys = {"kernel": kernel, "out": out, "cols": cols, "bits": bits, "rows": rows}
            results.append({**keys, "threads": threads, **found})
            if not chosen.json:
                print(
                    f"{kernel:8} {out:5} x {cols:<5} b={bits} rows={rows:<4} threads={threads}  "
                    f"{found['cpu_us']:9.1f} us  {found['weight_gb_s']:6.2f} GB/s of weights  "
                    f"{found['gmac_s']:7.1f} GMAC/s",
                    flush=True,
                )
    if chosen.json:
        json.dump(results, sys.stdout)
        print()
    else:
        print(f"others took {foreign.share():.0%} of the machine")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
