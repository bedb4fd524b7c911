"""How warm an RK3588 gets and what it takes: watts of its parts, and what is known of coolings.

No public measurement tells the parts of the chip apart. What is published are whole boards that decode, on
the CPU and on the NPU; the parts are chosen so that they add up to those (`tests/board/test_power.py`).
`bench.thermal` fits the rows of `COOLINGS` to temperatures that others published, and says how far they can
be trusted.
"""

from collections.abc import Mapping
from typing import Final

from rockledge.board.power import Constant, Power
from rockledge.board.thermal import Cooling, Stage

BIG_VOLTS: Final[Mapping[float, float]] = {
    0.408e9: 0.675, 1.2e9: 0.675, 1.416e9: 0.725, 1.608e9: 0.7625, 1.8e9: 0.85, 2.016e9: 0.925,
    2.208e9: 0.9875, 2.4e9: 1.0,
}  # fmt: skip
"""Volts of an A76 by its clock (rk3588-opp.dtsi of Linux; below 1.2 GHz it stays the same)."""
NPU_VOLTS: Final[Mapping[float, float]] = {
    2e8: 0.7, 3e8: 0.7, 4e8: 0.7, 5e8: 0.7, 6e8: 0.7, 7e8: 0.7, 8e8: 0.75, 9e8: 0.8, 1e9: 0.85,
}  # fmt: skip
"""Volts of the NPU by its clock (npu_opp_table of the vendor's device tree)."""

POWER: Final = Power(
    big_volts=BIG_VOLTS,
    npu_volts=NPU_VOLTS,
    core=Constant(
        1.75,
        "W",
        "one A76 computing at 2.4 GHz: a quarter of four that decode (6.2-8.0 W over idle: "
        "cpu_decode_watts); bench.thermal finds the heat of four that mine in a ratio of 3 to 5 to that of "
        "one",
        "derived",
    ),
    stalled=Constant(
        0.6,
        "share",
        "of those watts that a core takes which waits for memory: nobody has published it",
        "assumed",
    ),
    byte=Constant(
        50e-12, "J/B", "LPDDR4x with its controller, 4 to 8 pJ a bit, of which 6 are taken", "assumed"
    ),
    npu=Constant(
        2.0, "W", "the NPU at 1 GHz: npu_decode_watts less what reading memory at its rate takes", "derived"
    ),
    idle=Constant(
        1.9,
        "W",
        "ThomasKaiser/sbc-bench, review of the ROCK 5B: 1.49 W, 0.41 W more with fast memory",
        "published",
    ),
)

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
