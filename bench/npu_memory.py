"""Memory of a model whose prompts go to the NPU: planned for an 8 GB board, and taken on the virtual NPU.

    python -m bench.npu_memory ARTIFACT [--context 8192] [--run] [--json]

The plan is the engine's own for an RK3588 with 8 GB: weights, arena, cache for the context, NPU buffers. With
--run an engine with as much memory as that plan reads a prompt on the virtual NPU, the shortest that goes
there, and says what its process took at most; the emulator is another process. Writes
bench/results/npu_memory.json. Exits 1 when the plan or the process is above 6.5 GB.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rockledge.artifact import open_artifact
from rockledge.board.boards import NPU_CORES, find_board
from rockledge.board.memory import DECODE_ROWS, cache_bytes
from rockledge.runtime.engine import Engine
from rockledge.runtime.offload.budget import largest_plan, npu_budget
from rockledge.runtime.offload.linears import linears_of
from rockledge.runtime.program import build_program

RESULTS = Path(__file__).parent / "results" / "npu_memory.json"
LIMIT = 6_500_000_000
BOARD = "rk3588-8gb"
THREADS = 4  # big cores of the board


def planned(path: Path, context: int) -> dict[str, int]:
    """Bytes by use on the board, and from how many tokens on a step goes to the NPU."""
    artifact = open_artifact(path)
    program = build_program(artifact)
    board = find_board(BOARD)
    weights = artifact.tensor_bytes

    def cache(rows: int) -> int:
        return cache_bytes(artifact.config, context, rows)

    def arena(rows: int) -> int:
        return sum(program.memory(each, context, THREADS).working for each in (rows, DECODE_ROWS))

    def budget(rows: int) -> int:
        return npu_budget(
            board,
            artifact.config,
            context=context,
            rows=rows,
            weights=weights,
            others=weights + arena(rows) + cache(rows),
            memory=None,
            free=None,
        )

    plan = largest_plan(
        linears_of(program), lanes=NPU_CORES, spaces=1, board=board, context=context, budget=budget
    )
    rows = plan.steps[-1]
    return {
        "weights_bytes": weights,
        "arena_bytes": arena(rows),
        "cache_bytes": cache(rows),
        "npu_buffers_bytes": plan.bytes,
        "npu_budget_bytes": budget(rows),
        "step_rows": rows,
        "from_rows": plan.from_rows,
        "blocks": len(plan.block_slot),
        "pinned_blocks": plan.pinned,
    }


def total(plan: Mapping[str, int]) -> int:
    """Bytes of all that is planned."""
    return sum(plan[f"{use}_bytes"] for use in ("weights", "arena", "cache", "npu_buffers"))


def run(path: Path, context: int, memory: int, tokens: int) -> dict[str, Any]:
    """An engine of its own process on the virtual NPU: prefill of `tokens`, and one token drawn."""
    script = Path(sys.executable).parent / "rockledge"
    child = [sys.executable, "-m", "bench.npu_memory", str(path), "--context", str(context)]
    command = [str(script), "npu", "emulate", "--driver", "rknpu", "--", *child]
    done = subprocess.run(
        [*command, "--child", str(memory), str(tokens)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    return found


def child(path: Path, context: int, memory: int, tokens: int) -> None:
    """What `run` starts: prints what was used as JSON."""
    with Engine.load(path, ctx=context, memory=memory, threads=2, npu="require", npu_rows=tokens) as engine:
        ids = [(7919 * i + 101) % engine.config.vocab for i in range(tokens)]
        for _ in engine.generate(ids, max_tokens=1, ignore_eos=True):
            pass
        found = {
            "engine_bytes": engine.footprint.bytes,
            "npu": engine.npu.body(),
            **peak(Path("/proc/self/status").read_text()),
        }
    print(json.dumps(found), flush=True)


def peak(status: str) -> dict[str, int]:
    """Bytes from /proc/PID/status: the most resident at once; now, mapped files and shared memory apart."""
    kilobytes = dict(line.split(":", 1) for line in status.splitlines() if line.endswith(" kB"))
    names = {"VmHWM": "peak_rss_bytes", "RssAnon": "anonymous_bytes", "RssFile": "files_bytes"}
    names["RssShmem"] = "shared_bytes"
    return {name: int(kilobytes[key].split()[0]) << 10 for key, name in names.items()}


def at_most(plan: Mapping[str, int], taken: Mapping[str, int]) -> int:
    """Bytes with all of weights, arena and cache touched, of which a short prompt touches not all: as if it
    had touched none of arena and cache."""
    unread = max(0, plan["weights_bytes"] - taken["files_bytes"])
    return taken["peak_rss_bytes"] + plan["arena_bytes"] + plan["cache_bytes"] + unread


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    plan = result["planned"]
    lines = [f"{result['artifact']} on {BOARD}, {result['context']} tokens of cache, planned:"]
    for use in ("weights", "arena", "cache", "npu_buffers"):
        lines.append(f"  {use.replace('_', ' '):12}{plan[f'{use}_bytes'] / 1e6:9.1f} MB")
    lines.append(f"  {'in all':12}{result['planned_bytes'] / 1e6:9.1f} MB, limit {LIMIT / 1e6:.0f} MB")
    lines.append(f"{plan['pinned_blocks']} of {plan['blocks']} blocks stay unpacked")
    if taken := result.get("taken"):
        lines.append(
            f"taken by the process: {taken['peak_rss_bytes'] / 1e6:.1f} MB at most, "
            f"{taken['npu']['buffer_bytes'] / 1e6:.1f} MB of them NPU buffers; "
            f"{taken['npu']['rows']} tokens in {taken['npu']['jobs']} jobs"
        )
        lines.append(f"with all of weights, arena and cache touched {result['at_most_bytes'] / 1e6:.1f} MB")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.npu_memory", description="memory with the NPU")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        child(chosen.artifact, chosen.context, *chosen.child)
        return 0
    plan = planned(chosen.artifact, chosen.context)
    result: dict[str, Any] = {
        "artifact": chosen.artifact.resolve().name,
        "board": BOARD,
        "context": chosen.context,
        "limit_bytes": LIMIT,
        "planned": plan,
        "planned_bytes": total(plan),
    }
    if chosen.run:
        result["taken"] = run(chosen.artifact, chosen.context, total(plan), plan["from_rows"])
        result["at_most_bytes"] = at_most(plan, result["taken"])
    within = max(total(plan), result.get("at_most_bytes", 0)) <= LIMIT
    result["within"] = within and plan["npu_buffers_bytes"] <= plan["npu_budget_bytes"]
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if chosen.json else table(result))
    return int(not result["within"])


if __name__ == "__main__":
    raise SystemExit(main())
