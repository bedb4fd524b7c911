"""How warm a chip gets: two stages, each a resistance and a time constant, and what is known of coolings.

    stage' = (resistance x watts - stage) / seconds        temperature = ambient + fast + slow

The fast stage is the chip itself (2 to 8 s), the slow one its heat sink and the air (60 to 200 s). One stage
cannot follow both: the sensor jumps within seconds of a load and goes on rising for minutes. `bench.thermal`
fits the rows of `COOLINGS` to temperatures that others published, and says how far they can be trusted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rockledge.board.facts import Kind
from rockledge.errors import UsageError


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


_SBC = "fitted by bench.thermal to ThomasKaiser/sbc-bench results (commit 53f7951)"

COOLINGS: Final[Mapping[str, Cooling]] = {
    cooling.name: cooling
    for cooling in (
        Cooling(
            "passive",
            "a heat sink without a fan (ROCK 5B)",
            Stage(0.60, 7.1),
            Stage(4.03, 200),
            f"{_SBC}: 4qJr, 4qJG",
            "fitted",
        ),
        Cooling(
            "heat-sink",
            "a large heat sink in a chassis (Turing RK1)",
            Stage(0.74, 8.0),
            Stage(1.44, 87),
            f"{_SBC}: 1Xuf1O1",
            "fitted",
        ),
        Cooling(
            "fan",
            "a heat sink with a fan (ROCK 5B)",
            Stage(0.83, 2.7),
            Stage(1.04, 60),
            f"{_SBC}: 41BH",
            "fitted",
        ),
        Cooling(
            "bare",
            "hardly anything (ROCK 5C)",
            Stage(2.43, 5.4),
            Stage(2.23, 60),
            f"{_SBC}: 5pv8oh",
            "fitted",
        ),
    )
}
"""By name. Temperatures give resistances times watts only: all are scaled by the watts of one load, so their
ratios are better known than they are."""


def find_cooling(name: str) -> Cooling:
    """The cooling called `name`. UsageError names all of them."""
    if name not in COOLINGS:
        raise UsageError(f"unknown cooling {name!r}, expected one of {', '.join(COOLINGS)}")
    return COOLINGS[name]
