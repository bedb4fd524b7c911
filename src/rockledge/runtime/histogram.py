"""How often something had which size: counts by bounds, as plain data that can cross a process boundary."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values were above `bounds[i - 1]` and at most `bounds[i]`, the last of them above all
    bounds; together they are `total`."""

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)
    total: float = 0.0


NONE = Histogram()


class Observed:
    """A histogram while it grows."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def histogram(self) -> Histogram:
        """How it stands."""
        return Histogram(self._bounds, tuple(self._counts), self._total)
