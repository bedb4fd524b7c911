"""How warm a chip gets: two stages, each a resistance and a time constant.

    stage' = (resistance x watts - stage) / seconds        temperature = ambient + fast + slow

The fast stage is the chip itself (2 to 8 s), the slow one its heat sink and the air (60 to 200 s). One stage
cannot follow both: the sensor jumps within seconds of a load and goes on rising for minutes. The constants of
a chip are beside its facts (`rk3588_heat.py`).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from rockledge.board.facts import Kind


@dataclass(frozen=True)
class Stage:
    """Kelvins a watt once it is warm, and the seconds after which it has 63 % of them."""

    kelvin_per_watt: float
    seconds: float


@dataclass(frozen=True)
class Cooling:
    """What takes the heat away from a chip."""

    name: str
    title: str
    fast: Stage
    slow: Stage
    source: str
    kind: Kind

    @property
    def kelvin_per_watt(self) -> float:
        """Of both stages, once everything is warm."""
        return self.fast.kelvin_per_watt + self.slow.kelvin_per_watt

    def scaled(self, resistance: float, capacity: float) -> "Cooling":
        """The same with all resistances and all heat capacities so many times as large."""
        return Cooling(
            self.name,
            self.title,
            _scaled(self.fast, resistance, capacity),
            _scaled(self.slow, resistance, capacity),
            self.source,
            self.kind,
        )


def _scaled(stage: Stage, resistance: float, capacity: float) -> Stage:
    return Stage(stage.kelvin_per_watt * resistance, stage.seconds * resistance * capacity)


@dataclass(frozen=True)
class Heat:
    """Kelvins of both stages above the ambient."""

    fast: float = 0.0
    slow: float = 0.0

    @property
    def kelvins(self) -> float:
        """Of the chip above the ambient."""
        return self.fast + self.slow

    def after(self, cooling: Cooling, watts: float, seconds: float) -> "Heat":
        """After so many seconds at so many watts; exact, however long that is."""
        return Heat(
            _after(self.fast, cooling.fast, watts, seconds), _after(self.slow, cooling.slow, watts, seconds)
        )


def _after(kelvins: float, stage: Stage, watts: float, seconds: float) -> float:
    final = stage.kelvin_per_watt * watts
    return final + (kelvins - final) * math.exp(-seconds / stage.seconds)


def settled(cooling: Cooling, watts: float) -> Heat:
    """After a long time at so many watts."""
    return Heat(cooling.fast.kelvin_per_watt * watts, cooling.slow.kelvin_per_watt * watts)


def worst(coolings: Collection[Cooling]) -> float:
    """Kelvins a watt of the one that takes the least heat away."""
    return max(cooling.kelvin_per_watt for cooling in coolings)
