"""Instructions of a decode step of one row and of four on an emulated Cortex-A76, drawing included.

    python -m bench.a76.steps [ARTIFACT] [--out FILE]

Tokens are drawn at temperature 0.8 with top-p 0.95 and a repetition penalty, so that nothing of a step is
left out; Python is counted too. One thread, 5 tokens of prompt, the difference between 4 and 12 steps.
ARTIFACT is that of `bench.a76`. Exits 1 where four rows take more than the goal allows. Writes
bench/results/a76_steps.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.a76.__main__ import LEAST, default_artifact
from bench.a76.counts import by_function, per_token
from bench.a76.emulator import Run, counted
from bench.models import UnavailableError
from rockledge.artifact import open_artifact

RESULTS = Path(__file__).parent.parent / "results" / "a76_steps.json"
ROWS = (1, 4)
PROMPT, FEW, MANY = 5, 4, 12
GOAL = 2.1
SHOWN = 16  # functions in the table


def by_rows(run: Run) -> dict[int, dict[str, float]]:
    """Instructions of a step by function, for each number of rows."""
    found = {}
    for number, rows in enumerate(ROWS):
        blocks = per_token(run.phases[2 * number + 1], run.phases[2 * number + 2], MANY - FEW)
        found[rows] = by_function(blocks, run.maps, run.names)
    return found


def summary(artifact: Path, found: dict[int, dict[str, float]]) -> dict[str, Any]:
    """What is kept: totals, their ratio, and the functions worth naming."""
    total = {rows: sum(functions.values()) for rows, functions in found.items()}
    one, four = ROWS
    return {
        "artifact": artifact.name,
        "instructions": {str(rows): round(total[rows]) for rows in ROWS},
        "ratio": round(total[four] / total[one], 4),
        "goal": GOAL,
        "functions": {
            name: {str(rows): round(found[rows].get(name, 0)) for rows in ROWS}
            for name, spent in sorted(found[four].items(), key=lambda item: -item[1])
            if spent >= LEAST
        },
    }


def table(result: dict[str, Any]) -> str:
    """All of it for people."""
    one, four = map(str, ROWS)
    lines = [f"{'millions of instructions a step':<40}{one + ' row':>10}{four + ' rows':>10}"]
    lines += [
        f"{name:<40}{spent[one] / 1e6:10.3f}{spent[four] / 1e6:10.3f}"
        for name, spent in list(result["functions"].items())[:SHOWN]
    ]
    spent = result["instructions"]
    lines.append(f"{'in all':<40}{spent[one] / 1e6:10.3f}{spent[four] / 1e6:10.3f}")
    lines.append(f"{four} rows take {result['ratio']:.2f} times the instructions of {one} (goal: {GOAL})")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 when something needed is missing or the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.a76.steps", description="steps of an A76 counted")
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    try:
        path = open_artifact((chosen.artifact or default_artifact()).resolve()).path
        run = counted("step_guest.py", path, PROMPT, FEW, MANY, *ROWS)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    result = summary(path, by_rows(run))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    return int(result["ratio"] > GOAL)


if __name__ == "__main__":
    sys.exit(main())
