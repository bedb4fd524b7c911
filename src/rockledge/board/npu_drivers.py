"""What the kernel's driver changes about the NPU: the clock that it sets, what a job's start costs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.facts import Fact

_NOTES = "gregordinary/rockchip-npu-notes"

MAINLINE_PATCHED_HZ: Final = 6.0e8
"""The clock of mainline boards with that project's patch (perf/clock.md)."""

DRIVER_FACTS: Final[Mapping[str, Mapping[str, Fact]]] = {
    "rknpu": {},
    "rocket": {
        "npu_hz": Fact(
            2.0e8, "Hz", f"mainline never sets the clock, it stays as at boot: {_NOTES} perf/clock.md",
            "published",
        ),
        "npu_submit_seconds": Fact(
            54e-6, "s", f"submit and wait of a tiny job, 51-54 us: {_NOTES} perf/iova-and-multicore.md",
            "published",
        ),
    },
}  # fmt: skip
"""Facts by driver that differ from those of the board, which are the vendor driver's."""


def board_with_driver(board: Board, driver: str, clock_hz: float | None = None) -> Board:
    """The board as it is with this kernel driver. `clock_hz`: the clock that the driver reports, if any."""
    under = replace(board, facts={**board.facts, **DRIVER_FACTS[driver]})
    return under if clock_hz is None else under.measured({"npu_hz": clock_hz}, f"the {driver} driver")
