"""What is not known about the NPU, as named switches with the default that evidence suggests.

The order is that of how much each is likely to matter. A fact without alternatives has no switch here: QD_EN,
OD_BYPASS and operand registers of a disabled DPU_RDMA have no effect; a program with fewer than four rows
follows the address formula; int16 products and compressed weights are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rockledge.board.boards import NPU_CORES
from rockledge.errors import NpuError
from rockledge.npu.requantise import Rounding as Rounding


class Int32Overflow(Enum):
    """2. A sum beyond int32: it wraps [X HAP], or a wider accumulator saturates [X NVDLA]."""

    WRAP = "wrap"
    SATURATE = "saturate"


class Int16Overflow(Enum):
    """3. An int4 product that does not fit its int16 output."""

    SATURATE = "saturate"
    WRAP = "wrap"


class FloatSum(Enum):
    """4. Float products: exact groups of 32 added in fp32 [H], fp32 in order of k, or rounded once."""

    GROUPS_OF_32 = "groups-of-32"
    IN_ORDER = "in-order"
    EXACT = "exact"


class Tf32Input(Enum):
    """6. How fp32 operands lose their low 13 bits [X]."""

    TRUNCATE = "truncate"
    NEAREST = "nearest"


class Fp16Overflow(Enum):
    """7. fp32 beyond fp16; flagged either way."""

    INFINITY = "infinity"
    LARGEST = "largest"


class FloatToInt16(Enum):
    """8. Rounding of floats stored as int16; both saturate."""

    TIES_EVEN = "ties-even"
    TRUNCATE = "truncate"


class LutRounding(Enum):
    """9. The fraction of an interpolated table value [?]."""

    FLOOR = "floor"
    TIES_EVEN = "ties-even"


class Report(Enum):
    """10. Known faults of the hardware that are not computed."""

    WARN = "warn"
    IGNORE = "ignore"


class ElementwiseFp16(Enum):
    """11. fp32 and rounded once, or the product's fp32 result rounded to fp16 before the operand is used."""

    ROUND_ONCE = "round-once"
    ROUND_FIRST = "round-first"


class Subnormals(Enum):
    """12. Of the float DPU stages; products keep theirs [H]."""

    KEEP = "keep"
    FLUSH = "flush"


class Stale(Enum):
    """13. Registers between programs: they persist [H], or every program begins with zeros."""

    PERSIST = "persist"
    RESET = "reset"


class BadBuffer(Enum):
    """15. A split of the convolution buffer that cannot be: an error, or zeros as one author saw."""

    REFUSE = "refuse"
    ZEROS = "zeros"


class SpareBank(Enum):
    """16. Tiles whose bytes fit their data banks, but whose entries of 64 bytes do not."""

    WARN = "warn"
    CORRUPT = "corrupt"
    IGNORE = "ignore"


class EarlyEnd(Enum):
    """20. An interrupt mask of an earlier block: the kick ends before the output is written, or an error."""

    MODEL = "model"
    REFUSE = "refuse"


class Notch(Enum):
    """21. Which of the two notch fields counts when they differ [?]."""

    REQUIRE_EQUAL = "require-equal"
    FIRST = "first"
    SECOND = "second"


class NegativeShift(Enum):
    """22. Whether negative values of the first stage use their own shift field."""

    SEPARATE = "separate"
    SAME = "same"


class Groups(Enum):
    """How many register groups take turns; golden programs cannot tell."""

    TWO = "two"
    ONE = "one"


class BnOrder(Enum):
    """The second stage with both parts active; golden programs cannot tell."""

    MULTIPLY_FIRST = "multiply-first"
    ALU_FIRST = "alu-first"


class ErdmaPitch(Enum):
    """Bytes between surfaces of an operand fetched beside MRDMA; all equal in golden programs."""

    STRIDE_PLUS_NOTCH = "stride-plus-notch"
    TWICE_STRIDE = "twice-stride"
    TWICE_NOTCH = "twice-notch"
    CUBE_PLUS_STRIDE = "cube-plus-stride"
    CUBE_PLUS_NOTCH = "cube-plus-notch"


@dataclass(frozen=True)
class Options:
    """Every switch; the defaults are the suggested ones. Raises NpuError for a rate outside [0, 1].

    `lane0_event_rate` (5) is the chance that a group of a product in output lane n mod 16 = 0 is lowered as
    on hardware; `lost_job_rate` and `first_job_lost` (26) make kicks report success without running, as after
    a reset. `seed` decides which. `strict_overflow` makes an overflow an error instead of a flag (2).
    `ow_op_minus_1` (23) reads BS_OW_OP as value less one beside DMA multipliers. `report_unwritten` (13)
    flags registers that are read but were never written. `core_order` (27) is the order in which the cores
    of a submit run. `max_programs` and `max_macs` end what no hardware would be asked to do in one kick.
    """

    requantise: Rounding = Rounding.TIES_EVEN
    int32_overflow: Int32Overflow = Int32Overflow.WRAP
    strict_overflow: bool = False
    int16_overflow: Int16Overflow = Int16Overflow.SATURATE
    float_sum: FloatSum = FloatSum.GROUPS_OF_32
    lane0_event_rate: float = 0.0
    tf32_input: Tf32Input = Tf32Input.TRUNCATE
    fp16_overflow: Fp16Overflow = Fp16Overflow.INFINITY
    float_to_int16: FloatToInt16 = FloatToInt16.TIES_EVEN
    lut_rounding: LutRounding = LutRounding.FLOOR
    lut_faults: Report = Report.WARN
    elementwise_fp16: ElementwiseFp16 = ElementwiseFp16.ROUND_ONCE
    subnormals: Subnormals = Subnormals.KEEP
    stale: Stale = Stale.PERSIST
    report_unwritten: bool = False
    bad_buffer: BadBuffer = BadBuffer.REFUSE
    spare_bank: SpareBank = SpareBank.WARN
    early_end: EarlyEnd = EarlyEnd.MODEL
    notch: Notch = Notch.REQUIRE_EQUAL
    negative_shift: NegativeShift = NegativeShift.SEPARATE
    ow_op_minus_1: bool = False
    lost_job_rate: float = 0.0
    first_job_lost: bool = False
    core_order: tuple[int, ...] = tuple(range(NPU_CORES))
    groups: Groups = Groups.TWO
    bn_order: BnOrder = BnOrder.MULTIPLY_FIRST
    erdma_pitch: ErdmaPitch = ErdmaPitch.STRIDE_PLUS_NOTCH
    seed: int = 0
    max_programs: int = 4095
    max_macs: int = 1 << 42

    def __post_init__(self) -> None:
        for name in ("lane0_event_rate", "lost_job_rate"):
            rate = getattr(self, name)
            if not 0.0 <= rate <= 1.0:
                raise NpuError(f"the option {name} is {rate}, expected a chance from 0 to 1")
        if sorted(self.core_order) != list(range(NPU_CORES)):
            raise NpuError(f"core_order is {self.core_order}, expected each of 0 to {NPU_CORES - 1} once")


DEFAULT = Options()
