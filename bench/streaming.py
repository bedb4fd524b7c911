"""How near streamed weights come to min(disk, compute), beside the same model in memory.

    python -m bench.streaming [--shape 1b] [--threads 1] [--share 0.5] [--rates 250M 1G] [--runs 3]

Within a budget that lacks `--share` of the weights, decode steps and steps of a prompt run with the disk as it
is, and with disks of limited rates (`bench.limited_disk`). A step takes at least what the disk needs for its
bytes, and at least what the same step takes with all weights in memory; printed is the share of the larger
of the two in what it took. Runs of every disk and of the model in memory alternate. What the disk gives by
itself is measured with the same requests. Writes bench/results/streaming.json.
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
from pathlib import Path
from typing import Any

from bench import speed_models
from bench.limited_disk import LimitedReader
from bench.machine import Foreign, commit, processor
from rockledge.artifact.layout import TENSORS
from rockledge.artifact.uncached import UncachedFile
from rockledge.cli.engine_options import size
from rockledge.runtime.engine import Engine
from rockledge.runtime.loading import prepare
from rockledge.runtime.request import Request
from rockledge.runtime.streaming.status import StreamStats
from rockledge.runtime.streaming.stream import READERS, REQUEST_BYTES
from rockledge.synth import SHAPES

TARGET = Path(__file__).parent / "results" / "streaming.json"
CONTEXT = 1024
STEPS = 6  # of decode in a run


def disk_rate(artifact: Path, most: int = 512 << 20) -> float:
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


def decode(engine: Engine) -> float:
    """Seconds of a decode step."""
    return _steps(engine, prompt=8, tokens=STEPS + 1)


def prefill(rows: int) -> Callable[[Engine], float]:
    """A function that gives the seconds of a step of so many rows of a prompt."""

    def run(engine: Engine) -> float:
        start = time.perf_counter()
        engine.logits([7] * rows, chunk=rows)
        return time.perf_counter() - start

    return run


def _steps(engine: Engine, prompt: int, tokens: int) -> float:
    engine.submit(Request("measured", tuple([7] * prompt), max_tokens=tokens, ignore_eos=True))
    engine.step()
    start = time.perf_counter()
    while engine.stats().decoding:
        engine.step()
    seconds = time.perf_counter() - start
    engine.step()
    return seconds / (tokens - 1)


def _read_by(engine: Engine, run: Callable[[Engine], float]) -> tuple[float, float, float]:
    """Seconds of a step of `run`, the seconds that it waited for the disk, and the bytes of a step."""
    before = engine.streaming or StreamStats(True, 0, 0, 0)
    start = time.perf_counter()
    seconds = run(engine)
    whole = time.perf_counter() - start
    after = engine.streaming or before
    waited = (after.waited_seconds - before.waited_seconds) * seconds / whole
    return seconds, waited, after.streamed


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
    own = disk_rate(artifact)
    options: dict[str, Any] = {"threads": args.threads, "ctx": CONTEXT, "npu": "off", "prefixes": False}
    with ExitStack() as stack:
        engines = {"in memory": stack.enter_context(Engine.load(artifact, **options))}
        rates = {"in memory": float("inf"), "its own": own}
        engines["its own"] = stack.enter_context(Engine.load(artifact, memory_budget=budget, **options))
        for rate in args.rates:
            reader = LimitedReader(artifact, rate)
            stack.callback(reader.close)
            name = f"{rate / 1e9:g} GB/s"
            rates[name] = rate
            limited = Engine.load(artifact, memory_budget=budget, read=reader, **options)
            engines[name] = stack.enter_context(limited)
        rows = []
        for kind, run in kinds.items():
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
            for number in range(args.runs + 1):
                for name, engine in engines.items():
                    one = _read_by(engine, run)
                    if number:  # the first brings in what stays
                        found[name].append(one)
            rows += [_row(kind, name, found, rates[name]) for name in engines if name != "in memory"]
    return rows


def _row(
    kind: str, name: str, found: dict[str, list[tuple[float, float, float]]], rate: float
) -> dict[str, Any]:
    took = statistics.median(seconds for seconds, _, _ in found[name])
    waited = statistics.median(waited for _, waited, _ in found[name])
    resident = statistics.median(seconds for seconds, _, _ in found["in memory"])
    read = found[name][0][2]
    disk_s = read / rate
    return {
        "kind": kind,
        "disk": name,
        "disk_mb_s": round(rate / 1e6, 1),
        "step_mb": round(read / 1e6, 1),
        "ms": round(1e3 * took, 1),
        "disk_ms": round(1e3 * disk_s, 1),
        "in_memory_ms": round(1e3 * resident, 1),
        "waited_ms": round(1e3 * waited, 1),
        "share": round(max(disk_s, resident) / took, 3),
        "ms_runs": [round(1e3 * seconds, 1) for seconds, _, _ in found[name]],
        "in_memory_ms_runs": [round(1e3 * seconds, 1) for seconds, _, _ in found["in memory"]],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--rows", type=int, default=128)
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
        print(
            f"{row['kind']}, disk {row['disk']} ({row['disk_mb_s']:.0f} MB/s): {row['ms']:.0f} ms a step, "
            f"disk {row['disk_ms']:.0f}, in memory {row['in_memory_ms']:.0f}; {row['share']:.0%} of min(disk, "
            "compute)"
        )
    print(f"others took {result['taken_by_others']:.0%} of the machine")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
