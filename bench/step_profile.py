"""Where the time of a step goes, by kind of operation, from the core's own clock.

    python -m bench.step_profile ARTIFACT [--threads 2] [--batch 1] [--depth 1] [--steps 20] [--json]

Every operation's least time over all steps counts, hand-over between threads included: on a machine with
other work that is what the code costs, where a mean is what the neighbours cost. Linears are distinguished by
what they read; GB/s are of codes, indices and scales, for attention of keys and values.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rockledge.board.memory import PAGE_TOKENS
from rockledge.runtime.engine import Engine
from rockledge.runtime.speed import answering, cache_tokens

LINEARS = ("qkv", "o", "gate, up", "down")  # of every layer, in the order of the program


def profile(path: Path, *, threads: int, batch: int, depth: int, steps: int) -> dict[str, Any]:
    """Milliseconds of one step and how they divide, the largest part first."""
    room = cache_tokens(depth, steps + 1, batch, PAGE_TOKENS)
    with Engine.load(path, threads=threads, ctx=room, npu="off", sequences=batch) as engine:
        with answering(engine, batch, depth, steps + 2):
            engine.step()
            names, times = engine.time_operations()
            least = np.full(len(names), np.iinfo(np.int64).max)
            for _ in range(steps):
                times[:] = 0
                engine.step()
                np.minimum(least, times, out=least)
        cache = batch * engine.cache_bytes_read(depth)
        weights = engine.step_bytes
    parts: dict[str, int] = {}
    for name, spent in zip(labels(names), least.tolist(), strict=True):
        parts[name] = parts.get(name, 0) + spent
    whole = sum(parts.values())
    linear = sum(spent for name, spent in parts.items() if name.startswith("linear"))
    return {
        "artifact": path.name,
        "threads": threads,
        "sequences": batch,
        "past_tokens": depth,
        "step_ms": round(whole / 1e6, 3),
        "weights_gb_s": round(weights / linear, 2),
        "cache_gb_s": round(cache / parts["attention"], 2),
        "parts_ms": {name: round(parts[name] / 1e6, 4) for name in sorted(parts, key=lambda n: -parts[n])},
    }


def labels(names: Sequence[str]) -> list[str]:
    """The operations' names, linears with what they compute: four a layer, and the head at the end."""
    found, seen, linears = [], 0, sum(name == "linear" for name in names)
    for name in names:
        if name == "linear":
            seen += 1
            kind = "head" if seen == linears else LINEARS[(seen - 1) % len(LINEARS)]
            name = f"linear: {kind}"
        found.append(name)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    found = profile(args.artifact, threads=args.threads, batch=args.batch, depth=args.depth, steps=args.steps)
    if args.json:
        json.dump(found, sys.stdout)
        print()
        return 0
    print(
        f"{found['artifact']}: {found['sequences']} sequences after {found['past_tokens']} tokens, "
        f"{found['threads']} threads: {found['step_ms']:.2f} ms a step; weights at "
        f"{found['weights_gb_s']:.1f} GB/s, keys and values at {found['cache_gb_s']:.1f} GB/s"
    )
    for name, spent in found["parts_ms"].items():
        print(f"  {name:18} {spent:9.3f} ms  {spent / found['step_ms']:6.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
