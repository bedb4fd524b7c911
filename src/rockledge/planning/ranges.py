"""A modelled figure as a range: with the board as slow, as it is taken, and as fast as its facts can be."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.facts import End

ENDS: Final[tuple[End, ...]] = ("low", "likely", "high")


@dataclass(frozen=True)
class Range:
    """`low` is never more than `likely`, nor that more than `high`."""

    low: float
    likely: float
    high: float

    def map(self, change: Callable[[float], float]) -> "Range":
        """Every end changed; ends that change places are put in order."""
        low, likely, high = change(self.low), change(self.likely), change(self.high)
        return Range(min(low, high), likely, max(low, high))


def over(figure: Callable[[End], float]) -> Range:
    """A figure at each end. With other facts another plan may be made: where that is worse than the likely
    one, the likely figure is the end."""
    found = [figure(end) for end in ENDS]
    return Range(min(found), found[1], max(found))


def fact_range(board: Board, fact: str) -> Range:
    """What was published of a fact."""
    found = board.facts[fact]
    low, high = found.spread or (found.value, found.value)
    return Range(low, found.value, high)
