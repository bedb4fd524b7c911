"""How long a run of known stages still takes, from what was expected and how it has gone so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# Of a stage: below this share its own speed says little.
_TELLING = 0.1


class TimeLeft:
    """Told of every unit that is done. `expected`: seconds by stage in order, 0 for those already over."""

    def __init__(self, expected: Mapping[str, float], clock: Callable[[], float] | None = None) -> None:
        self._expected = dict(expected)
        self._clock = clock or time.monotonic
        self._stage = ""
        self._began = self._last = self._clock()
        self._from = 0.0  # share of the stage that was done when it began here
        self._spent: dict[str, float] = {}  # of stages that are over

    def seconds(self, stage: str, done: int, total: int) -> float:
        """Seconds left after `done` of `total` units of `stage`."""
        now, share = self._clock(), done / max(total, 1)
        if stage != self._stage:
            if self._stage:
                self._spent[self._stage] = self._last - self._began
            self._began = self._last
            first = 1 / max(total, 1)  # the unit that is reported here began with the stage
            self._stage, self._from = stage, max(share - first, 0.0)
        spent, gone = now - self._began, share - self._from
        self._last = now
        if done >= total:
            self._spent[stage] = spent
        rest = 1 - share
        own = spent / gone * rest if gone > 0 else 0.0
        guess = self._expected.get(stage, 0.0) * self._pace() * rest / max(1 - self._from, 1e-9)
        weight = min(gone / _TELLING, 1.0)
        return max(weight * own + (1 - weight) * guess, 0.0) + self._later(stage) * self._pace()

    def _later(self, stage: str) -> float:
        """What was expected of the stages after `stage`."""
        names = list(self._expected)
        after = names[names.index(stage) + 1 :] if stage in names else []
        return sum(self._expected[name] for name in after)

    def _pace(self) -> float:
        """How much longer the stages that are over took than expected."""
        expected = sum(self._expected.get(name, 0.0) for name in self._spent)
        return sum(self._spent.values()) / expected if expected > 0 else 1.0

    def place(self, stage: str) -> str:
        """ "stage 2 of 5"."""
        names = list(self._expected)
        return f"stage {names.index(stage) + 1} of {len(names)}" if stage in names else stage
