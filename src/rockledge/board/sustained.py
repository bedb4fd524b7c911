"""What heat leaves of a speed once everything is warm, with the governor and without. Everything is modelled.

    watts over idle that hold a temperature = (temperature - ambient) / kelvins a watt - idle watts

With the governor those of its target are met by a mixture of two rungs of the ladder, as it does. Without it
a kernel that throttles swings between two clocks, so that the mean temperature lies between its trip and the
hysteresis below. Both stages of a cooling have settled after an hour to less than a millionth, so an hour is
not run through.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rockledge.board.governor import Gains
from rockledge.board.levers import Demand, Rung, Work, ladder, speed
from rockledge.board.thermal import Cooling


@dataclass(frozen=True)
class Sustained:
    """Shares of the speed with nothing held back, 0 to 1: `governed`, and `ungoverned` with a kernel that
    throttles. `celsius`: how warm the chip would get if nobody held it back; `watts`: over idle, then."""

    governed: float
    ungoverned: float
    celsius: float
    watts: float


def sustained(work: Work, demand: Demand, cooling: Cooling, ambient: float, target: float) -> Sustained:
    """What is left of what is asked, in a room of `ambient` °C, with a governor that keeps `target`."""
    board = work.board
    idle = board.power.idle.value

    def allowed(celsius: float) -> float:
        return (celsius - ambient) / cooling.kelvin_per_watt - idle

    full = speed(work, work.full, demand)
    celsius = ambient + cooling.kelvin_per_watt * (idle + full.watts)
    trip = board.value("passive_trip_celsius")
    ungoverned = 1.0
    slow = speed(work.at_clock(board.value("throttled_cpu_hz")), work.full, demand)
    # A chip that runs at the throttled clock anyway has nothing to be held back by.
    if celsius >= trip and slow.watts < full.watts:
        mean = allowed(trip - board.value("trip_hysteresis") / 2)
        share = min(max((mean - slow.watts) / (full.watts - slow.watts), 0.0), 1.0)
        left = (slow.decode_tok_s + slow.prompt_tok_s) / (full.decode_tok_s + full.prompt_tok_s)
        ungoverned = share + (1 - share) * left
    return Sustained(
        governed=kept(ladder(work, demand), allowed(target - Gains().below)),
        ungoverned=ungoverned,
        celsius=celsius,
        watts=full.watts,
    )


def kept(rungs: Sequence[Rung], watts: float) -> float:
    """The share of the full speed that a mixture of two neighbouring rungs keeps at so many watts; that of
    the last rung where even it takes more."""
    if watts >= rungs[0].watts:
        return rungs[0].kept
    for upper, lower in pairwise(rungs):
        if watts >= lower.watts:
            share = (watts - lower.watts) / max(upper.watts - lower.watts, 1e-9)
            return lower.kept + share * (upper.kept - lower.kept)
    return rungs[-1].kept
