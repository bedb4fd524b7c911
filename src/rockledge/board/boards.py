"""Boards as data: the chip's facts plus how much memory is soldered beside it.

A board is named `chip-memory` ("rk3588-8gb"); real measurements replace facts with `Board.measured`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rockledge.board.facts import Fact
from rockledge.board.rk3588 import FACTS
from rockledge.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Board:
    """One board: its name, RAM in bytes, and the facts everything modelled is computed from."""

    name: str
    ram_bytes: int
    facts: Mapping[str, Fact]

    def value(self, fact: str) -> float:
        """The number behind a fact, in the fact's own unit. KeyError if there is no such fact."""
        return self.facts[fact].value

    def measured(self, values: Mapping[str, float], source: str) -> "Board":
        """The same board with some facts replaced by measurements (units stay). Unknown names: UsageError."""
        unknown = sorted(set(values) - set(self.facts))
        if unknown:
            known = ", ".join(sorted(self.facts))
            raise UsageError(f"no fact is named {', '.join(unknown)}; known facts are {known}")
        fresh = {
            name: Fact(value, self.facts[name].unit, source, "measured here")
            for name, value in values.items()
        }
        return replace(self, facts={**self.facts, **fresh})


BOARDS: dict[str, Board] = {
    f"rk3588-{gib}gb": Board(f"rk3588-{gib}gb", gib << 30, FACTS) for gib in (4, 8, 16, 32)
}


def find_board(name: str) -> Board:
    """The board called `name`. UsageError names the known ones."""
    if name not in BOARDS:
        raise UsageError(
            f"unknown board {name!r}, expected one of {', '.join(BOARDS)}{did_you_mean(name, BOARDS)}"
        )
    return BOARDS[name]


def board_with(ram_bytes: int) -> Board:
    """The board whose memory a machine with `ram_bytes` has: the smallest that is not smaller, because a
    system never sees all of what is soldered; the largest for machines beyond all boards."""
    by_size = sorted(BOARDS.values(), key=lambda board: board.ram_bytes)
    return next((board for board in by_size if board.ram_bytes >= ram_bytes), by_size[-1])
