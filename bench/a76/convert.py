"""Instructions a weight of the native loops of conversion on an emulated Cortex-A76: `python -m
bench.a76.convert`.

Rows of 4096 channels, turned and rounded; exits 1 when what is needed is missing or a weight takes more than
the goal.
"""

import sys

from bench.a76.emulator import counted
from bench.models import UnavailableError

ROWS, COLS = 32, 4096
GOAL = 300
PHASES = {1: "turned", 2: "rounded to four bits", 3: "rounded to three bits"}


def main() -> int:
    """Counts and prints."""
    try:
        run = counted("convert_guest.py", ROWS, COLS)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    each = {phase: sum(run.phases[phase].values()) / (ROWS * COLS) for phase in PHASES}
    for phase, what in PHASES.items():
        print(f"{what:<24}{each[phase]:8.1f} instructions a weight")
    most = 2 * each[1] + each[2]  # at most two turns: of a matrix's inputs and of its outputs
    print(f"{'two turns, four bits':<24}{most:8.1f} (goal: at most {GOAL})")
    return int(most > GOAL)


if __name__ == "__main__":
    sys.exit(main())
