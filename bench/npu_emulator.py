"""How fast the emulator of the NPU is: one product on one core, and SmolLM2's linear layers for 128 tokens.

    python -m bench.npu_emulator [--json]

Weights and activations are random int8 in the shapes of SmolLM2-135M (speed does not depend on values); every
sum is compared with float64 outside the time. Each part runs in a process of its own, whose linear-algebra
library is held to one thread: more gain little at these sizes, and wait busily where there is other work.
Next to wall-clock time stands processor time, which distinguishes a slow program from a busy machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from rockledge.model.block import decoder
from rockledge.npu import layout
from rockledge.npu.programs.matmul import compile_matmul
from rockledge.npu.programs.tile_program import product_program
from rockledge.npu.programs.tile_search import plan
from rockledge.synth import shape_config
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.verify.emulated import EmulatedNpu

PRODUCT: Final = (128, 2048, 768)  # rows, inputs, columns
PRODUCT_GOAL_MS: Final = 30.0
PRODUCT_RUNS: Final = 15
TOKENS: Final = 128
PREFILL_GOAL_S: Final = 20.0


def product() -> dict[str, Any]:
    """One int8 product as one program: milliseconds of a kick, fetching and decoding its words included."""
    m, k, n = PRODUCT
    a, b = _int8((m, k), 1), _int8((n, k), 2)
    program = product_program(m, k, n)
    sums = np.zeros(m * n, np.int32)
    places = {"program": 0x0010_0000, "input": 0x0100_0000, "weight": 0x0200_0000, "output": 0x0300_0000}
    memory = Memory.of(
        {
            "program": (places["program"], program.at(places)),
            "input": (places["input"], layout.pack_cube(a, layout.INT8.atom)),
            "weight": (places["weight"], layout.pack_kernels(b, layout.INT8)),
            "output": (places["output"], sums),
        }
    )
    core = Core(memory)
    times, busy = [], []
    for _ in range(PRODUCT_RUNS):
        start, start_busy = time.perf_counter(), time.process_time()
        core.run(program, places)
        times.append(1e3 * (time.perf_counter() - start))
        busy.append(1e3 * (time.process_time() - start_busy))
    exact = a.astype(np.float64) @ b.T.astype(np.float64)
    return {
        "rows": m,
        "inputs": k,
        "columns": n,
        "best_ms": round(min(times), 2),
        "median_ms": round(statistics.median(times), 2),
        "median_cpu_ms": round(statistics.median(busy), 2),
        "goal_ms": PRODUCT_GOAL_MS,
        "exact": bool((layout.unpack_cube(sums, m, n, layout.SUMS_IN_ATOM) == exact).all()),
    }


def prefill() -> dict[str, Any]:
    """All linear layers of SmolLM2-135M for 128 tokens: seconds to place operands, run and read sums."""
    config = shape_config("135m")
    shapes = [(linear.rows, linear.cols) for linear in decoder(config).layers[0].linears]
    npu, seconds, busy, planning, exact = EmulatedNpu(), 0.0, 0.0, 0.0, True
    compiled = {}
    for shape in dict.fromkeys(shapes):
        start = time.perf_counter()
        compiled[shape] = compile_matmul(plan(TOKENS, *shape))
        planning += time.perf_counter() - start
    for layer in range(config.layers):
        for index, (outputs, inputs) in enumerate(shapes):
            a, b = _int8((TOKENS, inputs), layer), _int8((outputs, inputs), 100 * layer + index)
            start, start_busy = time.perf_counter(), time.process_time()
            sums = compiled[outputs, inputs].multiply(a, b, npu.run)
            seconds += time.perf_counter() - start
            busy += time.process_time() - start_busy
            exact &= bool((sums == a.astype(np.float64) @ b.T.astype(np.float64)).all())
    return {
        "model": "SmolLM2-135M",
        "tokens": TOKENS,
        "linear_layers": config.layers * len(shapes),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(busy, 2),
        "plan_seconds": round(planning, 2),
        "goal_seconds": PREFILL_GOAL_S,
        "exact": exact,
        "flags": len(npu.flags),
    }


def _int8(shape: tuple[int, int], seed: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.random.default_rng(seed).integers(-128, 128, shape, np.int8)


PARTS: Final = {"product": product, "prefill": prefill}


def measured(part: str) -> dict[str, Any]:
    """A part in a process of its own with one thread."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, "-m", "bench.npu_emulator", "--part", part],
        env={**os.environ, **threads},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def report(results: dict[str, dict[str, Any]]) -> list[str]:
    """Both parts for people."""
    one, whole = results["product"], results["prefill"]
    verdict = {True: "exact", False: "WRONG"}
    first = (
        f"int8 {one['rows']} x {one['inputs']} x {one['columns']}, one program on one core: "
        f"{one['best_ms']} ms at best, median {one['median_ms']}, processor {one['median_cpu_ms']} "
        f"(goal {one['goal_ms']}); {verdict[one['exact']]}"
    )
    second = (
        f"{whole['model']}, {whole['tokens']} tokens, {whole['linear_layers']} linear layers on one core: "
        f"{whole['seconds']} s, processor {whole['cpu_seconds']} "
        f"(goal {whole['goal_seconds']} on two), after {whole['plan_seconds']} s to plan; "
        f"{verdict[whole['exact']]}, {whole['flags']} flags"
    )
    return [first, second]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both parts and prints them."""
    parser = argparse.ArgumentParser(prog="python -m bench.npu_emulator", description="speed of the emulator")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    parser.add_argument("--part", choices=sorted(PARTS), help="measure one part in this process")
    chosen = parser.parse_args(arguments)
    if chosen.part:
        print(json.dumps(PARTS[chosen.part]()))
        return 0
    results = {part: measured(part) for part in PARTS}
    print(json.dumps(results) if chosen.json else "\n".join(report(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
