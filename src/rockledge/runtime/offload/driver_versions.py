"""Which versions of the vendor's driver are used by default, and the reports that decide it.

A driver that hangs in the kernel hangs the whole board, and no program can do anything about it afterwards.
So it is decided by the version alone, before anything is submitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rockledge.runtime.npu_device import Description

TRUSTED_FROM: Final = (0, 9, 6)


@dataclass(frozen=True)
class Report:
    """Something that somebody met on a board: with which version, what happened, and where it can be read."""

    version: str
    what: str
    source: str


REPORTS: Final = (
    Report("0.9.2", "core 1 fails", "rockchip-linux/rknpu2#121"),
    Report("0.9.3", "submits fail; the same board works with 0.9.6", "radxa/kernel#312"),
    Report("before 0.9.6", "the board hangs", "armbian/linux-rockchip#157"),
    Report("before 0.9.6", "the board hangs", "armbian/linux-rockchip#158"),
)
"""All published evidence of programs like ours working is of 0.9.8; 0.9.6 and 0.9.7 have no report against
them and the same interface."""


def known_problem(about: Description) -> str | None:
    """Why this driver is not used unless it is required, or None. One sentence."""
    if about.driver != "rknpu" or about.version >= TRUSTED_FROM:
        return None
    found, trusted = (".".join(map(str, version)) for version in (about.version, TRUSTED_FROM))
    sources = ", ".join(report.source for report in REPORTS)
    return f"drivers like rknpu {found} have hung whole boards ({sources}), expected {trusted} or newer"
