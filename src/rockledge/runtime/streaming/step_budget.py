"""How many rows of prompts ride along in a step that reads weights from the disk.

Such a step takes as long as the disk needs for a pass over the weights, however few rows it has, so rows
that are computed meanwhile cost nothing: prompts get all of those. Beyond that a step may take SHARE times
what it takes without prompts, or ALONE_S where nobody waits for an answer, as `runtime.step_budget` has it.

What a row costs is measured from the time that steps did not wait for the disk, and what a pass takes from
those that did. So one step is enough to know both, where control from step to step would take many passes.
"""

from collections.abc import Callable

from rockledge.runtime.step_budget import ALONE_S, MORE, MOST, SHARE, TILE

FIRST = 16 * TILE
"""Rows of prompts in the first step beside answers, and the fewest that say what a row costs."""
_WAITED = 0.05  # share of a step from which on it says what a pass takes
_NEW = 0.5  # weight of the latest measurement: steps are long, and few


class StreamedStepBudget:
    """As `StepBudget`. `waited` gives the seconds that steps have waited for the disk so far."""

    def __init__(self, most: int, step_s: float | None, waited: Callable[[], float]) -> None:
        self.part = 1.0
        """Of the time that prompts would take of a step, how much they may."""
        self._most = most
        self._step_s = step_s
        self._waited = waited
        self._before = 0.0
        self._row_s: float | None = None  # computing a row of a prompt
        self._pass_s: float | None = None  # of the disk
        self._alone_s: float | None = None  # a step without prompts

    def rows(self, decode_rows: int, prompts: int = 1) -> int:
        """Rows of `prompts` prompts beside `decode_rows` others."""
        if self._row_s is None:
            return self._most if decode_rows == 0 else min(FIRST, self._most - decode_rows)
        free = self._pass_s or 0.0
        if decode_rows == 0:
            wanted = self._step_s or max(ALONE_S, SHARE * free)
        else:
            alone = max(free, self._alone_s or 0.0)
            wanted = self._step_s or SHARE * min(1 + MORE * max(prompts - 1, 0), MOST) * alone
            wanted -= (1 - self.part) * max(0.0, wanted - alone)
        rows = int(max(wanted, free) / self._row_s) // TILE * TILE
        # A tile at least: prompts must go on, however slow it is.
        return min(max(rows - decode_rows, TILE), self._most - decode_rows)

    def ran(self, decode_rows: int, prompt_rows: int, seconds: float) -> None:
        """A step of so many rows took `seconds`."""
        total = self._waited()
        waited, self._before = total - self._before, total
        if waited > _WAITED * seconds:
            self._pass_s = _mean(self._pass_s, seconds)
        elif self._pass_s is not None:
            self._pass_s = min(self._pass_s, seconds)
        if prompt_rows >= min(FIRST, self._most - decode_rows):
            self._row_s = _mean(self._row_s, max(seconds - waited, 1e-6) / (decode_rows + prompt_rows))
        elif prompt_rows < TILE:
            self._alone_s = _mean(self._alone_s, seconds)


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + _NEW * (now - before)
