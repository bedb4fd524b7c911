"""How near streamed weights come to min(disk, compute), beside the same model in memory.

    python -m bench.streaming [--shape 1b] [--threads 1] [--share 0.5] [--rates 250M 1G] [--runs 3]

Within a budget that lacks `--share` of the weights, decode steps and steps of a prompt run with the disk as
it is, and with disks of limited rates (`bench.limited_disk`). A step takes at least what the disk needs for
its bytes, and at least what the same step takes with all weights in memory; printed is the share of the
larger of the two in what it took, in the best run of each. Runs of every disk and of the model in memory
alternate, and so does the measurement of what the disk gives by itself to requests of the same kind. On a
disk that others use too that is only roughly what it gave to the steps, so there is no share of it. Writes
bench/results/streaming.json.
"""

import argparse
import json
import mmap
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import speed_models
from bench.limited_disk import LimitedReader, MemoryReader
from bench.machine import Foreign, commit, processor
from rockledge.artifact.layout import TENSORS
from rockledge.artifact.uncached import UncachedFile
from rockledge.cli.engine_options import size
from rockledge.runtime.engine import Engine
from rockledge.runtime.loading import prepare
from rockledge.runtime.request import Request
from rockledge.runtime.streaming.stream import READERS, REQUEST_BYTES
from rockledge.synth import SHAPES

TARGET = Path(__file__).parent / "results" / "streaming.json"
CONTEXT = 1024
OWN = "its own"  # the disk's own rate
STEPS = 3  # of decode in a run
PROMPTS = 2


def disk_rate(artifact: Path, most: int = 256 << 20) -> float:
    """Bytes a second that the disk gives to as many threads as the runtime has, with requests as large."""
    with UncachedFile(artifact / TENSORS) as file:
        offsets = range(0, min(most, file.bytes - REQUEST_BYTES), REQUEST_BYTES)
        start = time.perf_counter()
        with ThreadPoolExecutor(READERS) as threads:
            read = sum(threads.map(lambda offset: _read(file, offset), offsets))
        return read / (time.perf_counter() - start)


def _read(file: UncachedFile, offset: int) -> int:
    with mmap.mmap(-1, REQUEST_BYTES) as room:
        return os.preadv(file.descriptor, [room], offset)


@dataclass(frozen=True)
class Run:
    """Of a step, the mean of some: seconds, how long of them it waited for the disk, and bytes read meanwhile
    (what was read ahead before is not among them); and what the disk gives a second."""

    seconds: float
    waited_s: float
    read: float
    rate: float


def decode(engine: Engine, rate: float) -> Run:
    """Steps that write a token each."""
    engine.submit(Request("measured", (7,) * 8, max_tokens=STEPS + 1, ignore_eos=True))
    engine.step()
    return _run(engine, STEPS, rate)


def prefill(rows: int) -> Callable[[Engine, float], Run]:
    """A function that runs steps of so many rows of a prompt, each with one token drawn."""

    def run(engine: Engine, rate: float) -> Run:
        for number in range(PROMPTS):
            engine.submit(Request(str(number), (7,) * rows, max_tokens=1, ignore_eos=True))
        return _run(engine, PROMPTS, rate)

    return run


def _run(engine: Engine, steps: int, rate: float) -> Run:
    """Until the engine has nothing to do."""
    before, start = engine.streaming, time.perf_counter()
    while not engine.idle:
        engine.step()
    seconds, after = time.perf_counter() - start, engine.streaming
    if before is None or after is None:
        return Run(seconds / steps, 0.0, 0, rate)
    waited, read = after.waited_seconds - before.waited_seconds, after.bytes_read - before.bytes_read
    return Run(seconds / steps, waited / steps, read / steps, rate)


def budget_lacking(artifact: Path, share: float, threads: int) -> int:
    """A budget in which about that share of what a step multiplies with has no room."""
    prepared = prepare(artifact, threads, 4, ctx=CONTEXT, budget=1)
    assert prepared.streamed is not None
    others = prepared.demand.total(256, CONTEXT) - prepared.demand.weights
    return others + prepared.streamed.always + int((1 - share) * sum(prepared.streamed.sizes))


def measure(artifact: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every disk and kind of step."""
    budget = budget_lacking(artifact, args.share, args.threads)
    kinds = {"decode": decode, f"prompt, {args.rows} rows": prefill(args.rows)}
    options: dict[str, Any] = {
        "threads": args.threads, "ctx": CONTEXT, "npu": "off", "prefixes": False, "step_s": 3600.0,
        "parallel": 1,
    }  # fmt: skip
    with ExitStack() as stack:

        def load(**more: Any) -> Engine:
            return stack.enter_context(Engine.load(artifact, **options, **more))

        engines = {"in memory": load(), OWN: load(memory_budget=budget)}
        rates = {"in memory": float("inf")}
        content = MemoryReader(artifact)
        for rate in args.rates:
            reader = LimitedReader(content, rate)
            rates[f"{rate / 1e6:.0f} MB/s"] = rate
            engines[f"{rate / 1e6:.0f} MB/s"] = load(memory_budget=budget, read=reader)
        rows = []
        for kind, run in kinds.items():
            found: dict[str, list[Run]] = {name: [] for name in engines}
            for number in range(args.runs + 1):
                for name, engine in engines.items():
                    one = run(engine, rates.get(name) or disk_rate(artifact))
                    if number:  # the first brings in what stays
                        found[name].append(one)
            for name, engine in engines.items():
                if engine.streaming is not None:
                    rows.append(_row(kind, name, found))
    return rows


def _row(kind: str, name: str, found: dict[str, list[Run]]) -> dict[str, Any]:
    best, in_memory = (min(found[side], key=lambda run: run.seconds) for side in (name, "in memory"))
    rate = statistics.median(run.rate for run in found[name])
    disk_s = best.read / rate
    return {
        "kind": kind,
        "disk": name,
        "disk_mb_s": round(rate / 1e6, 1),
        "step_mb": round(best.read / 1e6, 1),
        "ms": round(1e3 * best.seconds, 1),
        "disk_ms": round(1e3 * disk_s, 1),
        "in_memory_ms": round(1e3 * in_memory.seconds, 1),
        "waited_ms": round(1e3 * best.waited_s, 1),
        "share": None if name == OWN else round(max(disk_s, in_memory.seconds) / best.seconds, 3),
        "ms_runs": [round(1e3 * run.seconds, 1) for run in found[name]],
        "in_memory_ms_runs": [round(1e3 * run.seconds, 1) for run in found["in memory"]],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rates", type=size, nargs="+", default=[250_000_000, 1_000_000_000])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args(arguments)
    artifact = speed_models.artifact(args.shape)
    foreign = Foreign()
    rows = measure(artifact, args)
    result = {
        "shape": args.shape,
        "threads": args.threads,
        "share_streamed": args.share,
        "processor": processor(),
        "commit": commit(),
        "rows": rows,
        "taken_by_others": foreign.share(),
    }
    TARGET.write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        reached = "" if row["share"] is None else f"; {row['share']:.0%} of min(disk, compute)"
        print(
            f"{row['kind']}, disk of {row['disk_mb_s']:.0f} MB/s ({row['disk']}): {row['ms']:.0f} ms a step, "
            f"disk {row['disk_ms']:.0f}, in memory {row['in_memory_ms']:.0f}{reached}"
        )
    print(f"others took {result['taken_by_others']:.0%} of the machine")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
