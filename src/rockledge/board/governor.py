"""Holds a chip below a temperature with as little loss of speed as can be: a controller, and when to doubt.

A pure function of what is read, of its own state, and of the ladder of settings (`levers.py`). Proportional
and integral control of the temperature as it will be in a while gives watts; of the two rungs of the ladder
around them it takes one now and the other a moment later, so that their mean is met. How warm a watt makes
the chip is not asked, so it may be wrong. A sensor that says nothing, the impossible, or always the same is
not believed: then a setting is taken with which every known cooling stays below the target.

The gains are chosen on the coolings of an RK3588 with resistances and capacities 30 % off either way, where
they hold a chip that would get 10 to 40 K too warm within 2 K of the target (`tests/board/test_governor.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.levers import Rung, Setting
from rockledge.board.thermal import worst

TARGET_CELSIUS: Final = 72.0
"""By default: throttling begins at 75 °C and stays until 73."""
LEAST_TARGET, MOST_TARGET = 45.0, 73.0
"""What a target may be: above what an idle board reaches, below where throttling stays."""

SAFE_AMBIENT: Final = 45.0
"""The warmest room that the safe setting is for, °C."""
_POSSIBLE: Final = (-20.0, 120.0)  # °C: the chip turns itself off at 115
_JUMP: Final = 20.0  # kelvins a second: more than a bare chip does by three times
_JUMP_READINGS: Final = 5  # after which a temperature that jumped and stayed is believed
_BELIEVED_AGAIN: Final = 30  # good readings after bad ones; twice as many with each contradiction
_MOST_DOUBLINGS: Final = 7  # an hour
_FORGIVEN: Final = 7200  # good readings after which no contradiction counts any more
_MISSED: Final = 3  # readings that may fail in a row
_SILENT: Final = "it gives no possible temperature"
_CONTRADICTED: Final = "it is cool, and the kernel holds clocks back as if it were hot"
_COOL: Final = 5.0  # kelvins below the target at which a kernel has no reason to throttle
_MEAN_SECONDS: Final = 30.0
_STUCK_SECONDS: Final = 120.0
_STUCK_WATTS: Final = 2.5  # a change that every cooling shows by more than the sensor's steps of 0.9 K


@dataclass(frozen=True)
class Gains:
    """`proportional` in watts a kelvin, `integral` in watts a kelvin and second; `ahead`: how many seconds
    ahead the temperature is taken; `smooth`: seconds over which its slope is averaged; `below`: kelvins
    that are kept from the target."""

    proportional: float = 1.0
    integral: float = 0.01
    ahead: float = 30.0
    smooth: float = 15.0
    below: float = 0.7


@dataclass(frozen=True)
class Reading:
    """What a board says: a monotonic time in seconds, the temperature of its warmest part (None where it does
    not say), and whether its kernel holds clocks back."""

    seconds: float
    celsius: float | None
    throttled: bool = False


@dataclass(frozen=True)
class State:
    """What the governor remembers. `held`: watts of its integral, None at the beginning; `slope`: K/s;
    `carry`: watts that earlier rungs have spent too little; `mean_watts`: of the last half minute; how many
    readings in a row were missing, jumped, contradicted what the kernel does, or were good; since when the
    temperature is the same, and the least and most watts meanwhile; `trouble`: why the sensor is not
    believed, "" while it is; `doubts`: how often the kernel contradicted one that was."""

    held: float | None = None
    slope: float = 0.0
    carry: float = 0.0
    last: Reading | None = None
    mean_watts: float = 0.0
    missed: int = 0
    jumped: int = 0
    contradicted: int = 0
    good: int = 0
    same_since: float = 0.0
    same_low: float = 0.0
    same_high: float = 0.0
    trouble: str = ""
    doubts: int = 0

    @property
    def believed_from(self) -> int:
        """Good readings in a row from which on the sensor is believed."""
        return _BELIEVED_AGAIN << min(max(self.doubts - 1, 0), _MOST_DOUBLINGS)


@dataclass(frozen=True)
class Decision:
    """The setting from now on, its modelled watts over idle, what it keeps of the full speed; whether it
    holds back anything; `trouble` as in `State`."""

    setting: Setting
    watts: float
    kept: float
    limits: bool
    trouble: str = ""


def safe_watts(board: Board, target: float) -> float:
    """Watts over idle with which a board on the worst known cooling, in a warm room, stays at the target."""
    resistance = worst(board.chip.coolings.values())
    return max(0.0, (target - SAFE_AMBIENT) / resistance - board.power.idle.value)


def govern(
    reading: Reading,
    state: State,
    rungs: Sequence[Rung],
    *,
    target: float = TARGET_CELSIUS,
    most_watts: float,
    safe: float,
    gains: Gains | None = None,
) -> tuple[Decision, State]:
    """What to do after a reading, once a second or so. `rungs`: the ladder for what is asked of the engine
    now; `most_watts`: of any ladder; `safe`: watts to be content with while the sensor is not believed
    (`safe_watts`)."""
    gains = gains or Gains()
    if reading.celsius is not None and not _POSSIBLE[0] <= reading.celsius <= _POSSIBLE[1]:  # nor is NaN
        reading = replace(reading, celsius=None)
    before = state.last
    state = _judged(reading, state, target)
    believed = state.good > 0
    if state.trouble:
        wanted = min(safe, most_watts)
        state = replace(state, held=wanted, slope=0.0)
    elif believed and before is not None:
        wanted, state = _controlled(reading, before, state, target, most_watts, gains)
    else:
        wanted = most_watts if state.held is None else state.held
    rung, carry = _rung(rungs, wanted, state.carry)
    passed = 0.0 if before is None else min(1.0, (reading.seconds - before.seconds) / _MEAN_SECONDS)
    mean = state.mean_watts + passed * (rung.watts - state.mean_watts)
    state = replace(state, carry=carry, mean_watts=mean, last=reading if believed else before)
    return Decision(
        rung.setting, rung.watts, rung.kept, rung.setting != rungs[0].setting, state.trouble
    ), state


def _controlled(
    reading: Reading, last: Reading, state: State, target: float, most_watts: float, gains: Gains
) -> tuple[float, State]:
    """Watts that are wanted now."""
    assert reading.celsius is not None
    assert last.celsius is not None
    step = max(reading.seconds - last.seconds, 1e-3)
    weight = min(1.0, step / gains.smooth)
    slope = state.slope + weight * ((reading.celsius - last.celsius) / step - state.slope)
    error = target - gains.below - (reading.celsius + gains.ahead * slope)
    held = most_watts if state.held is None else state.held
    held = min(max(held + gains.integral * error * step, 0.0), most_watts)
    return held + gains.proportional * error, replace(state, held=held, slope=slope)


def _rung(rungs: Sequence[Rung], wanted: float, carry: float) -> tuple[Rung, float]:
    """The rung to take now; `carry` is what earlier ones have spent too little."""
    if wanted >= rungs[0].watts:
        return rungs[0], 0.0
    upper, lower = rungs[0], rungs[-1]
    for one, next_one in pairwise(rungs):
        if one.watts >= wanted >= next_one.watts:
            upper, lower = one, next_one
            break
    if wanted <= lower.watts:
        return lower, 0.0
    share = (wanted - lower.watts) / max(upper.watts - lower.watts, 1e-9)
    if replace(upper.setting, rest=lower.setting.rest) == lower.setting:
        rest = upper.setting.rest + (1 - share) * (lower.setting.rest - upper.setting.rest)
        kept = upper.kept + (1 - share) * (lower.kept - upper.kept)
        return Rung(replace(upper.setting, rest=rest), kept, wanted), 0.0
    carry += wanted
    # More watts for the same speed are only taken where all of them are there.
    worth = upper.kept > lower.kept
    taken = upper if worth and carry - upper.watts >= lower.watts - carry else lower
    bound = upper.watts - lower.watts
    return taken, min(max(carry - taken.watts, -bound), bound)


def _judged(reading: Reading, state: State, target: float) -> State:
    """The state with what this reading says of the sensor."""
    last = state.last
    if reading.celsius is None:
        missed = state.missed + 1
        return _doubted(state, _SILENT if missed >= _MISSED else "", missed=missed)
    if last is not None and last.celsius is not None:
        fastest = _JUMP * max(reading.seconds - last.seconds, 0.5)
        if abs(reading.celsius - last.celsius) > fastest and state.jumped < _JUMP_READINGS:
            return _doubted(state, "its temperature jumps", jumped=state.jumped + 1)
    state = _compared(reading, state)
    cool = reading.throttled and reading.celsius < target - _COOL
    state = replace(state, missed=0, jumped=0, contradicted=state.contradicted + 1 if cool else 0)
    if reading.seconds - state.same_since >= _STUCK_SECONDS and (
        state.same_high - state.same_low >= _STUCK_WATTS
    ):
        return _doubted(state, "its temperature does not move with the load")
    # The governor holds back all it can at once then, so that the watts say nothing.
    ignored = not reading.throttled and reading.celsius > target + _COOL
    if reading.seconds - state.same_since >= _STUCK_SECONDS and ignored:
        return _doubted(state, "it stays hot, and the kernel holds no clock back")
    if state.contradicted >= _MISSED:
        again = 0 if state.trouble else 1
        return replace(_doubted(state, _CONTRADICTED), doubts=state.doubts + again)
    good = state.good + 1
    trouble = "" if good >= state.believed_from else state.trouble
    return replace(state, good=good, trouble=trouble, doubts=0 if good >= _FORGIVEN else state.doubts)


def _doubted(state: State, trouble: str, **changes: int) -> State:
    counts = {"missed": state.missed, "jumped": state.jumped, **changes}
    return replace(
        state,
        good=0,
        trouble=trouble or state.trouble,
        missed=counts["missed"],
        jumped=counts["jumped"],
    )


def _compared(reading: Reading, state: State) -> State:
    """Since when the temperature has been the same, and between which watts."""
    if state.last is not None and reading.celsius == state.last.celsius:
        return replace(
            state,
            same_low=min(state.same_low, state.mean_watts),
            same_high=max(state.same_high, state.mean_watts),
        )
    return replace(state, same_since=reading.seconds, same_low=state.mean_watts, same_high=state.mean_watts)
