"""How a kernel throttles a hot chip: the rule of its step-wise governor, on the clocks of a board.

The rule is that of Linux drivers/thermal/gov_step_wise.c: hot and rising takes the next lower clock, cooler
and dropping the next higher one. A trip that was reached counts until the temperature is `hysteresis` below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rockledge.board.boards import PROGRAMMED

TRIP_CELSIUS: Final = PROGRAMMED.value("passive_trip_celsius")
HYSTERESIS: Final = PROGRAMMED.value("trip_hysteresis")
POLL_SECONDS: Final = 0.25
"""Between two looks here. A kernel looks every 20 or 100 ms once it is hot (device trees of the vendor and of
Linux), but the sensor's steps of 0.9 K take seconds."""
CLOCKS: Final = (PROGRAMMED.value("unthrottled_cpu_hz"), PROGRAMMED.value("throttled_cpu_hz"))
"""Of the big cores: nothing between."""


@dataclass
class Throttle:
    """A zone with one trip, and what it has done to the clocks `hz`, from the highest down."""

    hz: Sequence[float] = CLOCKS
    trip: float = TRIP_CELSIUS
    hysteresis: float = HYSTERESIS
    state: int = 0
    """0 while nothing is held back; an index of `hz`."""
    events: int = 0
    """How often it took a lower clock."""
    _last: float | None = None
    _crossed: bool = False

    def poll(self, celsius: float) -> float:
        """What the sensor says now, in whose steps it rises and drops; the clock from here on."""
        self._crossed = celsius >= self.trip - (self.hysteresis if self._crossed else 0.0)
        last, self._last = self._last, celsius
        hot = celsius >= self.trip
        if hot and (last is None or celsius > last) and self.state < len(self.hz) - 1:
            self.state += 1
            self.events += 1
        elif not self._crossed and last is not None and celsius < last:
            self.state = max(0, self.state - 1)
        return self.hz[self.state]
