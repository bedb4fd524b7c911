"""The two tables of the elementwise stage and how they are read: interpolation inside, slopes outside.

Entry i of the negative table LE lies at index -(512 - i) * step, entry i of LO at i * step, with step =
2^select. Values are signed 16-bit; which table counts is the sign of x * BN_MUL before the addition [H].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu.lut import ENTRIES, table_faults
from rockledge_npu_lab.emulation.faults import Place, StreamError
from rockledge_npu_lab.emulation.options import LutRounding, Report
from rockledge_npu_lab.emulation.register_file import Snapshot, signed
from rockledge_npu_lab.emulation.rounding import INT_RANGE

_KNOWN_CFG: Final = 0x68
_FAULT_RULES: Final = {"zero": "lut-zero", "flat": "lut-flat", "offset": "lut-near-zero"}


@dataclass
class Tables:
    """LE and LO of a core [2, 513], and where the next data word goes; they outlive programs."""

    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, ENTRIES), np.int64))
    table: int = 0
    address: int = 0
    writing: bool = False

    def access(self, value: int) -> None:
        """A write of LUT_ACCESS_CFG: without bit 17 no data word is a table write [I]."""
        self.writing = bool(value >> 17 & 1)
        self.table = value >> 16 & 1
        self.address = value & 0x3FF

    def store(self, value: int, place: Place) -> None:
        """A write of LUT_ACCESS_DATA. Raises StreamError past the last entry."""
        if not self.writing:
            return
        if self.address >= ENTRIES:
            raise StreamError("field-limit", place, f"entry {self.address} of a table of {ENTRIES}")
        self.values[self.table, self.address] = signed(value, 16)
        self.address += 1


def look_up(
    index: NDArray[np.float32], negative: NDArray[np.bool_], tables: Tables, registers: Snapshot
) -> NDArray[np.int64]:
    """16-bit results of the tables at `index`; `negative` is where LE applies. Any shape."""
    if registers.value("DPU_LUT_CFG") != _KNOWN_CFG:
        raise registers.refuse("stage", "DPU_LUT_CFG", f"expected {_KNOWN_CFG:#x}, the only known mode")
    _warn(tables, registers)
    info = registers.fields("DPU_LUT_INFO")
    scale, shift = registers.fields("DPU_LUT_LE_SLOPE_SCALE"), registers.fields("DPU_LUT_LE_SLOPE_SHIFT")
    scale_high = registers.fields("DPU_LUT_LO_SLOPE_SCALE")
    shift_high = registers.fields("DPU_LUT_LO_SLOPE_SHIFT")
    if max(info["le_select"], info["lo_select"]) > 31:
        raise registers.refuse("stage", "DPU_LUT_INFO", "expected segments of at most 2^31")
    wide = np.nan_to_num(index.astype(np.float64), nan=0.0)
    start = float(registers.signed("DPU_LUT_LE_START"))
    end = float(registers.signed("DPU_LUT_LO_END"))
    low = _side(wide, start, 2.0 ** info["le_select"], tables.values[0], registers)
    high = _side(wide, 0.0, 2.0 ** info["lo_select"], tables.values[1], registers)
    under = tables.values[0, 0] + (wide - start) * _slope(scale["underflow"], shift["underflow"])
    over = tables.values[1, -1] + (wide - end) * _slope(scale_high["overflow"], shift_high["overflow"])
    low = np.where(wide < start, under, low)
    high = np.where(wide > end, over, high)
    # A sum whose sign is not its product's reaches the other end of a table, which holds its last entry [?].
    return _whole(np.where(negative, low, high), registers)


def _side(
    index: NDArray[np.float64], start: float, step: float, entries: NDArray[np.int64], registers: Snapshot
) -> NDArray[np.float64]:
    place = np.clip((index - start) / step, 0, ENTRIES - 1)
    below = np.minimum(np.floor(place).astype(np.int64), ENTRIES - 2)
    left = entries[below]
    rise = (entries[below + 1] - left) * (place - below)
    floor = registers.options.lut_rounding is LutRounding.FLOOR
    found: NDArray[np.float64] = left + (np.floor(rise) if floor else np.rint(rise))
    return found


def _slope(scale: int, shift: int) -> float:
    return signed(scale, 16) / float(1 << shift)


def _whole(values: NDArray[np.float64], registers: Snapshot) -> NDArray[np.int64]:
    floor = registers.options.lut_rounding is LutRounding.FLOOR
    whole = np.floor(values) if floor else np.rint(values)
    low, high = INT_RANGE[16]
    return np.clip(whole, low, high).astype(np.int64)


def _warn(tables: Tables, registers: Snapshot) -> None:
    """Faults that hardware has with such tables; they are not computed."""
    if registers.options.lut_faults is Report.IGNORE:
        return
    for fault, register, text in table_faults(tables.values, registers.signed("DPU_OUT_CVT_OFFSET")):
        registers.flag(_FAULT_RULES[fault], register, text)
