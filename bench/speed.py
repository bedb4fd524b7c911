"""The speed table: ours beside llama.cpp on this machine, every row with its goal, in alternating runs.

    python -m bench.speed [--only ROW ...] [--again] [--threads 2] [--runs 5]

Models are random weights of each shape (bench/speed_models.py), made into the cache on the first run, and
SmolLM2's GGUF for llama.cpp's 135M. A finished row is kept in bench/results/speed.json, not measured again
unless `--only` names it, `--again` is given, or others took more than a tenth of the machine while it ran; so
an interrupted table is continued. The file has a table for each family of processors, and those of others
stay as they are. Numbers are medians over the runs, least and most beside them; what other processes took of
the machine is part of every row. Missed goals are explained in docs/performance.md.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.llama_cpp import tool
from bench.machine import QUIET, Foreign
from bench.models import UnavailableError
from bench.speed_rows import ROWS, Row, Setting
from rockledge.runtime.processor import this_processor

TARGET = Path(__file__).parent / "results" / "speed.json"

# The figures other programs read: name, row, goal. Where a figure has two rows, the worse counts.
RATIOS = (
    ("decode_1b", "decode_1b", "ratio"),
    ("decode_135m", "decode_135m", "ratio"),
    ("prefill_1b", "prefill_1b", "ratio"),
    ("prefill_135m", "prefill_135m", "ratio"),
    ("batch8_decode", "batch8_1b", "ratio"),
    ("batch8_decode", "batch8_135m", "ratio"),
    ("roofline_share", "decode_1b", "roofline_share"),
)


def body(name: str, row: Row, foreign: float, at: Setting) -> dict[str, Any]:
    """What is kept of a row."""
    return {
        "goals": {
            goal: {
                "value": round(one.value, 4),
                "at_most" if one.at_most else "at_least": one.wanted,
                "met": one.met,
            }
            for goal, one in row.goals.items()
        },
        "medians": {side: round(statistics.median(values), 4) for side, values in row.runs.items() if values},
        "runs": row.runs,
        **row.facts,
        "threads": at.threads,
        "taken_by_others": foreign,
    }


def ratios(rows: Mapping[str, Any]) -> dict[str, float]:
    """The figures of RATIOS, of rows that have been measured."""
    found: dict[str, float] = {}
    for name, row, goal in RATIOS:
        if row in rows:
            value = rows[row]["goals"][goal]["value"]
            found[name] = min(value, found.get(name, value))
    return found


def table(rows: Mapping[str, Any]) -> str:
    """The rows for people."""
    lines = []
    for name, row in rows.items():
        noise = f"  (others took {row['taken_by_others']:.0%} of the machine)" if _disturbed(row) else ""
        lines.append(f"{name}{noise}")
        for goal, one in row["goals"].items():
            wanted = f"at most {one['at_most']:g}" if "at_most" in one else f"at least {one['at_least']:g}"
            lines.append(
                f"    {goal:32} {one['value']:10.3f}  {'met   ' if one['met'] else 'MISSED'}  {wanted}"
            )
        for side, values in row["runs"].items():
            spread = f"{min(values):.2f} to {max(values):.2f} over {len(values)}" if values else "no runs"
            lines.append(f"      {side:30} {row['medians'].get(side, 0):10.2f}          {spread}")
    return "\n".join(lines)


def _disturbed(row: Mapping[str, Any]) -> bool:
    return bool(row["taken_by_others"] > QUIET)


def measure(name: str, at: Setting) -> dict[str, Any]:
    """One row, measured now."""
    print(name, file=sys.stderr, flush=True)
    foreign = Foreign()
    row = ROWS[name](at)
    return body(name, row, foreign.share(), at)


def tables(target: Path) -> dict[str, Any]:
    """What the file holds: for each family of processors its clocks, ratios and rows."""
    return dict(json.loads(target.read_text())["processors"]) if target.exists() else {}


def write(rows: Mapping[str, Any], target: Path) -> dict[str, Any]:
    """The table of the finished rows, in its order, which becomes this processor's in the file."""
    machine = this_processor()
    result = {
        "clocks_mhz": list(machine.clocks_mhz),
        "ratios": ratios(rows),
        "rows": {name: rows[name] for name in ROWS if name in rows},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    all_of_them = {**tables(target), machine.name_and_family: result}
    partial.write_text(json.dumps({"processors": all_of_them}, indent=1) + "\n")
    partial.replace(target)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args(arguments)
    at = Setting(args.threads, args.runs)
    processor = this_processor().name_and_family
    rows: dict[str, Any] = tables(args.out).get(processor, {"rows": {}})["rows"]
    try:
        tool("llama-bench")
        for name in args.only or ROWS:
            if name in rows and not (args.again or args.only or _disturbed(rows[name])):
                continue
            rows[name] = measure(name, at)
            write(rows, args.out)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    result = write(rows, args.out)
    print(processor)
    print(table(result["rows"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
