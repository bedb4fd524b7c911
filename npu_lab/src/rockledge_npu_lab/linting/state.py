"""The registers that one program runs with, as the questions that suspicions are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rockledge.npu.isa import CNA_PRECISION, Precision, decode
from rockledge.npu.layout import NATIVE, Native

DEPTHWISE: Final = 3  # CONV_MODE
ENTRY_BYTES: Final = 64  # what CBUF_CON1 counts
Objection = tuple[str, str]


@dataclass(frozen=True)
class State:
    """The register values that one program runs with, and the blocks that it starts."""

    values: Mapping[str, int]
    enabled: frozenset[str]

    def field(self, register: str, field: str) -> int:
        """A field's value; 0 for a register that nothing has written."""
        return decode(register, self.values.get(register, 0))[field]

    @property
    def conv(self) -> bool:
        """Whether the multipliers run."""
        return "CNA" in self.enabled

    @property
    def depthwise(self) -> bool:
        return self.field("CNA_CONV_CON1", "conv_mode") == DEPTHWISE

    @property
    def input_type(self) -> Precision | None:
        """The type that CNA reads; None for a code that means nothing."""
        return CNA_PRECISION.get(self.field("CNA_CONV_CON1", "in_precision"))

    @property
    def type_name(self) -> str | None:
        """The name of that type."""
        return self.input_type.name if self.input_type else None

    @property
    def native(self) -> Native | None:
        """The native layout of that type."""
        return NATIVE.get(self.type_name or "")

    @property
    def rows(self) -> int:
        """Pixels of the input cube."""
        return self.field("CNA_DATA_SIZE0", "width") * self.field("CNA_DATA_SIZE0", "height")

    @property
    def inputs(self) -> int:
        return self.field("CNA_DATA_SIZE1", "channels")

    @property
    def kernels(self) -> int:
        return self.field("CNA_WEIGHT_SIZE2", "kernels")

    @property
    def lut(self) -> bool:
        """Whether the tables are in use."""
        return not (self.field("DPU_EW_CFG", "bypass") or self.field("DPU_EW_CFG", "lut_bypass"))

    @property
    def elementwise(self) -> bool:
        """Whether the EW stage computes with an operand."""
        ew = decode("DPU_EW_CFG", self.values.get("DPU_EW_CFG", 0))
        return not (ew["bypass"] or ew["op_bypass"]) and not self.lut
