"""A board that gets warm: heat, the kernel's throttling, and a sensor, moved on by whoever asks.

It does not know the governor. What it is told is which setting works on what; the speed and watts of that are
those of `board/levers.py`, at the clock that the kernel leaves. Everything it says is modelled.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from rockledge.board.levers import Demand, Setting, Speed, Work, speed
from rockledge.board.thermal import Cooling, Heat, settled
from rockledge.virtual_board.throttle import POLL_SECONDS, Throttle

SENSOR_STEP = 0.923
"""Kelvins between two temperatures that an RK3588 can say: those of the logs in bench/thermal_logs."""


@dataclass(frozen=True)
class Done:
    """What came of a stretch of time: mean speed and watts over idle, the temperature at its end and the
    highest in it."""

    speed: Speed
    celsius: float
    highest: float


class VirtualBoard:
    """A chip with a cooling in a room. It begins as it is when it has done nothing for long."""

    def __init__(
        self, work: Work, cooling: Cooling, ambient: float, *, throttle: Throttle | None = None
    ) -> None:
        self.ambient = ambient
        self.cooling = cooling
        self.throttle = throttle or Throttle()
        self._idle = work.board.power.idle.value
        self.heat: Heat = settled(cooling, self._idle)
        self.seconds = 0.0
        self.npu_limit_hz = work.npu_hz
        """What somebody wrote as the NPU's highest clock."""
        self._speed = lru_cache(maxsize=4096)(_at_clock(work))

    @property
    def celsius(self) -> float:
        """The temperature itself."""
        return self.ambient + self.heat.kelvins

    @property
    def sensed(self) -> float:
        """What the sensor says."""
        return SENSOR_STEP * round(self.celsius / SENSOR_STEP)

    @property
    def cpu_hz(self) -> float:
        """The clock that the kernel leaves the big cores."""
        return self.throttle.hz[self.throttle.state]

    def advance(self, seconds: float, setting: Setting, demand: Demand) -> Done:
        """So much time with a setting that works on what is asked."""
        if setting.npu_hz:
            setting = replace(setting, npu_hz=min(setting.npu_hz, self.npu_limit_hz))
        works = 1.0 - setting.rest
        setting = replace(setting, rest=0.0)
        by_state = [self._speed(hz, setting, demand) for hz in self.throttle.hz]
        polls = max(1, round(seconds / POLL_SECONDS))
        each, highest = seconds / polls, self.celsius
        spent = [0] * len(by_state)
        for _ in range(polls):
            spent[self.throttle.state] += 1
            watts = works * by_state[self.throttle.state].watts
            self.heat = self.heat.after(self.cooling, self._idle + watts, each)
            self.throttle.poll(self.sensed)
            highest = max(highest, self.celsius)
        answers, prompts, watts = (
            works * sum(n * value for n, value in zip(spent, values, strict=True)) / polls
            for values in zip(*((s.decode_tok_s, s.prompt_tok_s, s.watts) for s in by_state), strict=True)
        )
        self.seconds += seconds
        return Done(Speed(answers, prompts, watts), self.celsius, highest)


def _at_clock(work: Work) -> Callable[[float, Setting, Demand], Speed]:
    clocks: dict[float, Work] = {}

    def found(cpu_hz: float, setting: Setting, demand: Demand) -> Speed:
        at = clocks.setdefault(cpu_hz, work.at_clock(cpu_hz))
        return speed(at, setting, demand)

    return found
