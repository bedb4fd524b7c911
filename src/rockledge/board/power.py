"""Watts of a chip at work: its cores, its memory and its NPU. Everything here is modelled.

    a core = W x (clock x voltage² of its highest point) x (STALLED + (1 - STALLED) x share of computing)
    memory = bytes/s x JOULES_PER_BYTE               NPU = W x (clock x voltage²) x share of time at work

No public measurement tells the parts of an RK3588 apart. What is published are whole boards that decode, on
the CPU and on the NPU; the parts are chosen so that they add up to those (`tests/board/test_power.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rockledge.board.facts import Kind


@dataclass(frozen=True)
class Constant:
    """A number of this module with its unit, where it is from, and how well it is known."""

    value: float
    unit: str
    source: str
    kind: Kind


BIG_VOLTS: Final[Mapping[float, float]] = {
    0.408e9: 0.675, 1.2e9: 0.675, 1.416e9: 0.725, 1.608e9: 0.7625, 1.8e9: 0.85, 2.016e9: 0.925,
    2.208e9: 0.9875, 2.4e9: 1.0,
}  # fmt: skip
"""Volts of an A76 by its clock (rk3588-opp.dtsi of Linux; below 1.2 GHz it stays the same)."""
NPU_VOLTS: Final[Mapping[float, float]] = {
    2e8: 0.7, 3e8: 0.7, 4e8: 0.7, 5e8: 0.7, 6e8: 0.7, 7e8: 0.7, 8e8: 0.75, 9e8: 0.8, 1e9: 0.85,
}  # fmt: skip
"""Volts of the NPU by its clock (npu_opp_table of the vendor's device tree)."""

CORE_WATTS: Final = Constant(
    1.75,
    "W",
    "one A76 computing at 2.4 GHz: a quarter of four that decode (6.2-8.0 W over idle: cpu_decode_watts); "
    "bench.thermal finds the heat of four that mine in a ratio of 3 to 5 to that of one",
    "derived",
)
STALLED: Final = Constant(
    0.6,
    "share",
    "of those watts that a core takes which waits for memory: nobody has published it",
    "assumed",
)
JOULES_PER_BYTE: Final = Constant(
    50e-12, "J/B", "LPDDR4x with its controller, 4 to 8 pJ a bit, of which 6 are taken", "assumed"
)
NPU_WATTS: Final = Constant(
    2.0, "W", "the NPU at 1 GHz: npu_decode_watts less what reading memory at its rate takes", "derived"
)
IDLE_WATTS: Final = Constant(
    1.9,
    "W",
    "ThomasKaiser/sbc-bench, review of the ROCK 5B: 1.49 W, 0.41 W more with fast memory",
    "published",
)


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


def core_watts(hz: float, computing: float) -> float:
    """Of an A76 that works, the share `computing` of its time not waiting for memory."""
    busy = STALLED.value + (1 - STALLED.value) * computing
    return CORE_WATTS.value * voltage_factor(BIG_VOLTS, hz) * busy


def memory_watts(bytes_per_second: float) -> float:
    """Of the DRAM and its controller, above those at rest."""
    return JOULES_PER_BYTE.value * bytes_per_second


def npu_watts(hz: float, busy: float) -> float:
    """Of the NPU at this clock that works for the share `busy` of the time."""
    return NPU_WATTS.value * voltage_factor(NPU_VOLTS, hz) * busy
