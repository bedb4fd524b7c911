"""Where an operation runs: of the ways to do it, the one that is modelled to take least time.

Every decision of this kind is made here: whether the linears of a step go to the NPU
(`runtime/offload/threshold.py`), and every row of the table of placements (`planning/placement.py`). What a
way takes is for the time formulas to say; here they only meet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CPU: Final = "CPU"
NPU: Final = "NPU"


@dataclass(frozen=True)
class Way:
    """One way to do an operation: on CPU or NPU, in which form ("" where there is one only), in how many
    seconds."""

    place: str
    seconds: float
    form: str = ""

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.place}, {self.form}" if self.form else self.place


@dataclass(frozen=True)
class Placement:
    """The way that was chosen, and the best of the others."""

    choice: Way
    runner_up: Way

    @property
    def costs(self) -> float:
        """Seconds that deciding otherwise would cost."""
        return self.runner_up.seconds - self.choice.seconds


def place(ways: Sequence[Way]) -> Placement:
    """The fastest of two or more ways and the one after it. Of equally fast ones the first is taken, so
    whoever lists the CPU first leaves a tie to it."""
    choice, runner_up, *_ = sorted(ways, key=lambda way: way.seconds)
    return Placement(choice, runner_up)
