"""Suspicions about the look-up tables that a stream loads: their entries, and whether they are its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu.lut import ENTRIES, table_faults
from rockledge_npu_lab.linting.state import Objection, State

LUT_MODE: Final = 0x68
LARGEST_PASS: Final = 4096  # pixels
_SIGN: Final = 1 << 31


@dataclass
class Loaded:
    """What a stream has written into the two tables so far, as the access port counts [I]."""

    entries: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, ENTRIES), np.int64))
    written: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((2, ENTRIES), np.bool_))
    table: int = 0
    address: int = 0
    writing: bool = False

    def write(self, register: str, value: int) -> Iterator[Objection]:
        """Follows a write of any register; objects to entries behind the last."""
        if register == "DPU_LUT_ACCESS_CFG":
            self.writing = bool(value >> 17 & 1)
            self.table, self.address = value >> 16 & 1, value & 0x3FF
        elif register == "DPU_LUT_ACCESS_DATA" and self.writing:
            if self.address >= ENTRIES:
                yield register, f"entry {self.address} of a table of {ENTRIES}"
                return
            self.entries[self.table, self.address] = (value & 0xFFFF) - ((value & 0x8000) << 1)
            self.written[self.table, self.address] = True
            self.address += 1

    def objections(self, state: State) -> Iterator[Objection]:
        """What is suspicious in a program that looks up; nothing for one that does not."""
        if "DPU" not in state.enabled or not state.lut:
            return
        if not self.written.all():
            missing = int((~self.written).sum())
            yield (
                "DPU_LUT_ACCESS_DATA",
                f"{missing} entries of the tables are not loaded in this stream: another's may be there [H]",
            )
        elif (mode := state.values.get("DPU_LUT_CFG", 0)) != LUT_MODE:
            yield "DPU_LUT_CFG", f"mode {mode:#x}; {LUT_MODE:#x} is the only one known"
        offset = state.values.get("DPU_OUT_CVT_OFFSET", 0)
        entries = np.where(self.written, self.entries, np.arange(1, ENTRIES + 1))
        for _, register, text in table_faults(entries, offset - ((offset & _SIGN) << 1)):
            yield register, f"{text}: spikes or wrong values on hardware [H: GRN]"
        pixels = 1
        for register, name in (("DPU_DATA_CUBE_WIDTH", "width"), ("DPU_DATA_CUBE_HEIGHT", "height")):
            pixels *= state.field(register, f"{name}_minus_1") + 1
        if pixels > LARGEST_PASS:
            text = f"{pixels} pixels in one look-up, expected at most {LARGEST_PASS}"
            yield "DPU_DATA_CUBE_WIDTH", f"{text}: wider ones lost their tail"
