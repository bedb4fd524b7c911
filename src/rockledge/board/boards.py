"""Boards by name: a chip and the memory soldered beside it.

A board is named `chip-memory` ("rk3588-8gb"), and more where that matters ("rk3588-8gb-lpddr5"); real
measurements replace facts with `Board.measured`. A new chip is one more file of data and a line of `_CHIPS`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from rockledge.board import raspberry_pi_5, rk3576, rk3588
from rockledge.board.chip import Chip, Memory, OperatingPoints
from rockledge.board.facts import End, Fact, check_facts
from rockledge.board.power import Power
from rockledge.board.thermal import Cooling
from rockledge.errors import UsageError, did_you_mean

_NEAREST: Final = 5


@dataclass(frozen=True)
class Board:
    """One board: its name, RAM in bytes, the chip, and the facts everything modelled is computed from.
    Raises UsageError for facts that cannot be true."""

    name: str
    ram_bytes: int
    facts: Mapping[str, Fact]
    chip: Chip
    operating_points: Mapping[str, OperatingPoints]

    def __post_init__(self) -> None:
        check_facts(self.facts)

    @property
    def has_npu(self) -> bool:
        """Whether there is an NPU, whoever can use it."""
        return "npu_cores" in self.facts

    def value(self, fact: str) -> float:
        """The number behind a fact, in the fact's own unit. KeyError if there is no such fact."""
        return self.facts[fact].value

    @property
    def power(self) -> Power:
        """Its watts. UsageError where too little is published of the chip."""
        if self.chip.power is None:
            raise UsageError(f"too little is published of the heat of a {self.chip.title} to model it")
        return self.chip.power

    def cooling(self, name: str) -> Cooling:
        """What takes its heat away, by name. UsageError names all that are known."""
        if not self.chip.coolings:
            raise UsageError(f"too little is published of the heat of a {self.chip.title} to model it")
        if name not in self.chip.coolings:
            raise UsageError(f"unknown cooling {name!r}, expected one of {', '.join(self.chip.coolings)}")
        return self.chip.coolings[name]

    def without_npu(self) -> "Board":
        """The same board with its NPU left alone."""
        return replace(self, facts={n: f for n, f in self.facts.items() if n != "npu_cores"})

    def at(self, end: End) -> "Board":
        """The same board as slow as its facts can be ("low"), or as fast ("high")."""
        return replace(self, facts={n: replace(f, value=f.at(end)) for n, f in self.facts.items()})

    def measured(self, values: Mapping[str, float], source: str) -> "Board":
        """The same board with some facts replaced by measurements (units stay). UsageError for unknown names,
        and for values that cannot be true."""
        unknown = sorted(set(values) - set(self.facts))
        if unknown:
            known = ", ".join(sorted(self.facts))
            raise UsageError(f"no fact is named {', '.join(unknown)}; known facts are {known}")
        fresh = {
            name: Fact(value, self.facts[name].unit, source, "measured here")
            for name, value in values.items()
        }
        return replace(self, facts={**self.facts, **fresh})


def _boards(chip: Chip, memories: Collection[Memory]) -> Iterator[Board]:
    for memory in memories:
        for gib in memory.gib:
            name = f"{chip.name}-{gib}gb" + (f"-{memory.suffix}" if memory.suffix else "")
            points = {**chip.operating_points, **memory.operating_points}
            yield Board(name, gib << 30, {**chip.facts, **memory.facts}, chip, points)


_CHIPS: Final = (
    (rk3588.CHIP, rk3588.MEMORIES),
    (raspberry_pi_5.CHIP, raspberry_pi_5.MEMORIES),
    (rk3576.CHIP, rk3576.MEMORIES),
)

BOARDS: dict[str, Board] = {
    board.name: board for chip, memories in _CHIPS for board in _boards(chip, memories)
}


def any_board(name: str) -> Board:
    """The board called `name`, also one on which nothing of ours runs. UsageError names the nearest ones."""
    if name not in BOARDS:
        runs = [known for known, board in BOARDS.items() if not board.chip.refused]
        near = get_close_matches(name.lower(), list(BOARDS), n=_NEAREST, cutoff=0.5) or runs
        raise UsageError(
            f"unknown board {name!r}, expected one such as {', '.join(near)}{did_you_mean(name, BOARDS)}"
        )
    return BOARDS[name]


def find_board(name: str) -> Board:
    """The board called `name`. UsageError names the nearest ones, or says why nothing of ours runs there."""
    board = any_board(name)
    if board.chip.refused:
        raise UsageError(
            f"this program does not run on {name}: {board.chip.refused}; "
            f"expected a board such as {PROGRAMMED.name}"
        )
    return board


PROGRAMMED: Final = BOARDS["rk3588-8gb"]
"""A board with the chip whose NPU the register programs are for."""
NPU_CORES: Final = int(PROGRAMMED.value("npu_cores"))
"""Of that NPU."""


def find_chip(compatible: Collection[str]) -> Chip | None:
    """The chip of a machine whose device tree has these `compatible` strings; None for one without facts."""
    return next((chip for chip, _ in _CHIPS if set(chip.compatible) & set(compatible)), None)


def find_chip_named(name: str) -> Chip | None:
    """The chip called `name` ("rk3588"); None for one without facts."""
    return next((chip for chip, _ in _CHIPS if chip.name == name), None)


def board_with(chip: Chip, ram_bytes: int) -> Board:
    """The board of a machine with this chip that sees `ram_bytes` of memory: the smallest that is not
    smaller, because a system never sees all of what is soldered; the largest for machines beyond all boards.
    Which kind of memory that is no system says: the first that is named, without a kind."""
    named = [board for board in BOARDS.values() if board.chip is chip]
    large = [board for board in named if board.ram_bytes >= ram_bytes]
    return min(large, key=_ram) if large else max(named, key=_ram)


def _ram(board: Board) -> int:
    return board.ram_bytes
