"""What `rockledge plan` says of memory, beside what a process takes that runs the model.

    python -m bench.planned_memory [--shape 8b] [--bits 4] [--context 8192] [--board rpi5-8gb] [--json]

A random artifact of the shape is made in a folder of its own and deleted afterwards; all weights at 4 bits
are 4.25 bits a weight with their indices and scales. A process with as many threads as the board has cores
reads a prompt that fills the context but for a few tokens, writes those, and says what it had resident at
most: pages of the mapped artifact, what the core allocated, and Python with its libraries. How many bytes
that is does not depend on the processor, so a board without an NPU is planned and this machine measured;
`bench.npu_memory` has the NPU's buffers. Writes bench/results/planned_memory.json. Exits 1 when the plan is
off by more than 5 %.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import commit, processor
from bench.npu_memory import peak
from rockledge.board.boards import find_board
from rockledge.model.config import ModelConfig
from rockledge.planning.fit import bits_of, room
from rockledge.runtime.engine import Engine
from rockledge.runtime.offload.prompt_time import weight_bytes
from rockledge.synth import SHAPES, shape_config, synth_artifact

RESULTS = Path(__file__).parent / "results" / "planned_memory.json"
LIMIT = 0.05
BOARD = "rpi5-8gb"
WRITTEN = 8  # tokens after the prompt
PARTS = ("weights", "working", "process", "total")


def planned(config: ModelConfig, bits: int, context: int, board: str) -> dict[str, int]:
    """Bytes by part with all weights at `bits`; "working" is cache and arena."""
    on = find_board(board)
    parts = room(on, config, weight_bytes(config, bits), context)
    return {
        "weights": parts.weights,
        "working": parts.cache + parts.arena,
        "process": parts.process,
        "total": parts.weights + parts.cache + parts.arena + parts.process,
    }


def measured(artifact: Path, context: int, threads: int) -> dict[str, int]:
    """Bytes of a process of its own that runs the model, by the same parts; "total" is the most that was
    resident at once, and "process" what of that is neither weights nor allocated by the core."""
    arguments = ["--child", str(artifact), str(context), str(threads)]
    command = [sys.executable, "-m", "bench.planned_memory", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found | {"process": found["total"] - found["weights"] - found["working"]}


def child(artifact: Path, context: int, threads: int) -> None:
    """What `measured` starts: prints what was used as JSON."""
    with Engine.load(artifact, ctx=context, threads=threads, npu="off") as engine:
        ids = [(7919 * i + 101) % engine.config.vocab for i in range(context - WRITTEN)]
        for _ in engine.generate(ids, max_tokens=WRITTEN, ignore_eos=True):
            pass
        found = {
            "weights": mapped(Path("/proc/self/smaps").read_text(), artifact),
            "working": engine.native_bytes,
            "total": peak(Path("/proc/self/status").read_text())["peak_rss_bytes"],
            "read_tokens": engine.stats().prompt_tokens,
        }
    print(json.dumps(found), flush=True)


def mapped(smaps: str, folder: Path) -> int:
    """Bytes resident of files below `folder`, from /proc/PID/smaps."""
    total, inside = 0, False
    for line in smaps.splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            inside = rest.rpartition(" ")[2].startswith(f"{folder.resolve()}/")
        elif inside and first == "Rss:":
            total += int(rest.split()[0]) << 10
    return total


def table(result: Mapping[str, Any]) -> str:
    """For people."""
    shape, bits = result["shape"], result["bits_per_weight"]
    lines = [
        f"{shape} at {bits:.2f} bits a weight, {result['context']} tokens, {result['threads']} threads",
        f"{'MB':10}{'planned':>10}{'measured':>10}",
    ]
    for part in PARTS:
        both = (result[side][part] / 1e6 for side in ("planned", "measured"))
        lines.append(f"{part:10}" + "".join(f"{value:10,.1f}" for value in both))
    lines.append(f"planned {result['off']:+.1%} of the measured peak, limit {LIMIT:.0%}")
    return "\n".join(lines)


def compared(shape: str, bits: int, context: int, board: str, folder: Path) -> dict[str, Any]:
    """Plan and measurement of a random artifact that is made in `folder`."""
    config, code = shape_config(shape), commit()
    artifact = synth_artifact(config, folder / "model", bits=bits)
    threads = int(find_board(board).value("cpu_cores"))
    plan, taken = planned(config, bits, context, board), measured(artifact, context, threads)
    return {
        "commit": code,
        "processor": processor(),
        "shape": shape,
        "bits_per_weight": round(bits_of(config, plan["weights"]), 3),
        "context": context,
        "board": board,
        "threads": threads,
        "planned": plan,
        "measured": taken,
        "off": round(plan["total"] / taken["total"] - 1, 4),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.planned_memory", description="planned memory")
    parser.add_argument("--shape", default="8b", choices=SHAPES)
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 8))
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--board", default=BOARD)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        child(Path(chosen.child[0]), int(chosen.child[1]), int(chosen.child[2]))
        return 0
    with tempfile.TemporaryDirectory(prefix="rockledge-memory-") as folder:
        result = compared(chosen.shape, chosen.bits, chosen.context, chosen.board, Path(folder))
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if chosen.json else table(result))
    return int(abs(result["off"]) > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
