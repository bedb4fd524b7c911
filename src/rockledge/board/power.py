"""Watts of a chip at work: its cores, its memory and its NPU. Everything here is modelled.

    a core = W x (clock x voltage² of its highest point) x (stalled + (1 - stalled) x share of computing)
    memory = bytes/s x joules a byte                 NPU = W x (clock x voltage²) x share of time at work

The constants of a chip are beside its facts (`rk3588_heat.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rockledge.board.facts import Kind


@dataclass(frozen=True)
class Constant:
    """A number of a chip's power with its unit, where it is from, and how well it is known."""

    value: float
    unit: str
    source: str
    kind: Kind


@dataclass(frozen=True)
class Power:
    """Of a chip. `big_volts`, `npu_volts`: by clock in Hz; `core`: W of a core that computes at the highest
    clock, `stalled`: the share of it that one takes which waits for memory; `byte`: joules that the memory
    takes for one; `npu`: W of the NPU at its highest clock; `idle`: W of a board that does nothing."""

    big_volts: Mapping[float, float]
    npu_volts: Mapping[float, float]
    core: Constant
    stalled: Constant
    byte: Constant
    npu: Constant
    idle: Constant

    @property
    def slowest_hz(self) -> float:
        """The highest clock of a core at its lowest voltage: below it nothing is saved by being slower."""
        least = min(self.big_volts.values())
        return max(hz for hz, volts in self.big_volts.items() if volts == least)


def voltage_factor(volts: Mapping[float, float], hz: float) -> float:
    """Clock times voltage squared, in those of the highest point; between points the voltage is on a line."""
    points = sorted(volts)
    top = points[-1]
    at = min(max(hz, points[0]), top)
    upper = next(point for point in points if point >= at)
    lower = max((point for point in points if point <= at), default=upper)
    share = 0.0 if upper == lower else (at - lower) / (upper - lower)
    found = volts[lower] + share * (volts[upper] - volts[lower])
    return at * found**2 / (top * volts[top] ** 2)


def core_watts(power: Power, hz: float, computing: float) -> float:
    """Of a core that works, the share `computing` of its time not waiting for memory."""
    busy = power.stalled.value + (1 - power.stalled.value) * computing
    return power.core.value * voltage_factor(power.big_volts, hz) * busy


def memory_watts(power: Power, bytes_per_second: float) -> float:
    """Of the DRAM and its controller, above those at rest."""
    return power.byte.value * bytes_per_second


def npu_watts(power: Power, hz: float, busy: float) -> float:
    """Of the NPU at this clock that works for the share `busy` of the time."""
    return power.npu.value * voltage_factor(power.npu_volts, hz) * busy
