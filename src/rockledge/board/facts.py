"""What a fact is: a number that never travels without its unit, its source and how far it can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rockledge.errors import UsageError

Kind = Literal["published", "derived", "fitted", "assumed", "measured here"]
"""From best known to least for another board's owner: a data sheet, a device tree or somebody's measurement;
arithmetic on those; a constant chosen so that a formula meets them; our judgement. "measured here" replaces
any of them on a real board."""

End = Literal["low", "likely", "high"]
"""A board as slow as facts can be, as it is taken, and as fast as they can be."""


@dataclass(frozen=True)
class Fact:
    """One number about a board. `source` names a public document or project that a reader can look up.
    `spread`: the least and the most of what was published of it, None where there is one figure only."""

    value: float
    unit: str
    source: str
    kind: Kind
    spread: tuple[float, float] | None = None

    def at(self, end: End) -> float:
        """The value, or of the spread the end at which a board is slow ("low") or fast ("high")."""
        more = UNITS[self.unit].more_is_fast
        if self.spread is None or end == "likely" or more is None:
            return self.value
        return self.spread[0] if more == (end == "low") else self.spread[1]


@dataclass(frozen=True)
class Unit:
    """What a number of a unit can be at all, from `least` to `most`; whether more of it makes a board fast,
    None where speed does not depend on it."""

    least: float
    most: float
    more_is_fast: bool | None = None


UNITS: Mapping[str, Unit] = {
    "cores": Unit(1, 1024),
    "Hz": Unit(1e7, 1e10, more_is_fast=True),
    "instructions/cycle": Unit(1, 64, more_is_fast=True),
    "128-bit operations/cycle": Unit(1, 64, more_is_fast=True),
    "MAC/cycle/core": Unit(0.1, 1e6, more_is_fast=True),
    "op/s": Unit(1e8, 1e16, more_is_fast=True),
    "B/s": Unit(1e8, 1e13, more_is_fast=True),
    "B/s from a disk": Unit(1e6, 1e11, more_is_fast=True),
    "B/s/core": Unit(1e8, 1e13, more_is_fast=True),
    "ns": Unit(1, 1e5, more_is_fast=False),
    "s": Unit(1e-9, 10, more_is_fast=False),
    "s/element": Unit(1e-12, 1e-3, more_is_fast=False),
    "elements": Unit(1, 1 << 30),
    "cycles/weight": Unit(1e-4, 1e3, more_is_fast=False),
    "cycles/MAC": Unit(1e-4, 1e3, more_is_fast=False),
    "cycles/score": Unit(1e-3, 1e5, more_is_fast=False),
    "cycles/element": Unit(1e-3, 1e5, more_is_fast=False),
    "cycles/element/part": Unit(1e-3, 1e5, more_is_fast=False),
    "B/program": Unit(8, 1 << 20),
    "B": Unit(1, 1 << 50),
    "B/core": Unit(1, 1 << 30),
    "B/bank": Unit(1, 1 << 30),
    "banks/core": Unit(1, 1024),
    "°C": Unit(1, 150),
    "K": Unit(0.1, 50),
    "W": Unit(0.01, 1000),
    "W over idle": Unit(0.01, 1000),
    "W at the wall": Unit(0.01, 1000),
}
"""The units that facts have. A figure in another scale (24 for 24 GB/s) is outside of what is possible."""


def check_facts(facts: Mapping[str, Fact]) -> None:
    """Raises UsageError for the first fact that cannot be true, with its unit and what is possible."""
    for name, fact in facts.items():
        unit = UNITS[fact.unit]
        low, high = fact.spread or (fact.value, fact.value)
        for value in (fact.value, low, high):
            if not unit.least <= value <= unit.most:  # nor is NaN
                raise UsageError(
                    f"{name} is {value:g} {fact.unit}, expected {unit.least:g} to {unit.most:g} {fact.unit}"
                )
        if not low <= fact.value <= high:
            raise UsageError(
                f"{name} is {fact.value:g} {fact.unit}, expected a value inside its spread of {low:g} to "
                f"{high:g} {fact.unit}"
            )
