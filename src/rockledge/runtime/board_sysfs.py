"""What a board's sysfs says of its heat, and the one clock that is set there.

Everything lies below a root, so that tests can lay out a board of their own. Temperatures are those of the
zones of the chip; a zone that gives nothing or the impossible is left out, and without any the answer is
None. A kernel holds clocks back where a cooling device of a processor is in use.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rockledge.runtime.sysfs_number import sysfs_count, sysfs_number

_ZONE: Final = re.compile(r"soc|cpu|core|package|center|npu")  # vendor's and mainline's names on an RK3588
_PROCESSOR: Final = re.compile(r"cpufreq|cpu", re.IGNORECASE)
_POSSIBLE: Final = (-40_000, 125_000)  # thousandths of a degree
_APART: Final = 30.0  # kelvins: chosen, more than zones of a chip this small should ever differ by


class BoardSysfs:
    """The files of one board."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._zones = [
            folder / "temp"
            for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*"))
            if _ZONE.search(_text(folder / "type").lower())
        ]
        self._devices = [
            folder / "cur_state"
            for folder in sorted((root / "sys/class/thermal").glob("cooling_device*"))
            if _PROCESSOR.search(_text(folder / "type"))
        ]
        npus = sorted((root / "sys/class/devfreq").glob("*"))
        self._npu = next((folder for folder in npus if "npu" in folder.name.split(".")[-1]), None)

    @property
    def readable(self) -> bool:
        """Whether it gives a temperature at all."""
        return self.celsius() is not None

    def celsius(self) -> float | None:
        """Of the warmest zone; None where none gives one that can be. Of three or more, one that is far
        warmer than all others is not counted: they lie on one chip."""
        found = sorted(self._temperatures())
        if len(found) > 2 and found[-1] - found[-2] > _APART:
            del found[-1]
        return found[-1] if found else None

    def _temperatures(self) -> Iterator[float]:
        for file in self._zones:
            found = sysfs_number(_text(file))
            if found is not None and _POSSIBLE[0] <= found <= _POSSIBLE[1]:
                yield found / 1000

    def throttled(self) -> bool:
        """Whether the kernel holds a processor back because of heat."""
        return any((sysfs_count(_text(file)) or 0) > 0 for file in self._devices)

    def npu_clocks(self) -> tuple[float, ...]:
        """The clocks in Hz that can be set as the NPU's highest; none where this process may not."""
        if self._npu is None or not os.access(self._npu / "max_freq", os.W_OK):
            return ()
        found = map(sysfs_count, _text(self._npu / "available_frequencies").split())
        return tuple(sorted(float(hz) for hz in found if hz))

    def npu_limit(self) -> float | None:
        """The NPU's highest clock as it is set now, in Hz; None where nothing says it."""
        found = None if self._npu is None else sysfs_count(_text(self._npu / "max_freq"))
        return float(found) if found else None

    def set_npu_clock(self, hz: float) -> bool:
        """Makes `hz` the NPU's highest clock; whether that was possible."""
        if self._npu is None:
            return False
        try:
            (self._npu / "max_freq").write_text(f"{hz:.0f}", encoding="ascii")
        except OSError:
            return False
        return True


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
