"""`rockledge npu verify`: register programs on the emulator, compared with plain arithmetic."""

from __future__ import annotations

import argparse
import math
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.engine_options import whole
from rockledge.cli.terminal import Terminal, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `npu verify`."""
    parser.add_argument(
        "file", metavar="CASES.json", help="programs with their shapes, layouts and addresses"
    )
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="seed of the random operands")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Runs every case; the exit code is 1 when one fails."""
    from rockledge_npu_lab.verify.golden import load_cases, verify

    cases = load_cases(args.file)
    outcomes = []
    with terminal.progress() as advance:
        for done, case in enumerate(cases, 1):
            outcomes.append(verify(case, args.seed))
            advance("cases", done, len(cases))
    rows = [
        (outcome.case, "passed" if outcome.passed else "FAILED", f"{outcome.error:.3g}", outcome.detail)
        for outcome in outcomes
    ]
    terminal.print(table(("case", "", "error", "measured as"), rows))
    passed = sum(outcome.passed for outcome in outcomes)
    terminal.print(f"\n{passed} of {len(outcomes)} cases passed")
    return {
        "file": args.file,
        "passed": passed,
        "failed": len(outcomes) - passed,
        "exit_code": int(passed < len(outcomes)),
        "cases": [
            {
                "id": outcome.case,
                "passed": outcome.passed,
                "error": outcome.error if math.isfinite(outcome.error) else None,
                "detail": outcome.detail,
                "flags": [str(flag) for flag in outcome.flags],
            }
            for outcome in outcomes
        ],
    }


COMMAND = Command(
    "verify", "run programs on the emulator and compare with plain arithmetic", add_arguments, run
)
