"""Programs of the DPU alone over contiguous fp16 blocks: two operands combined, or a look-up in a table.

Layout does not matter to either: a block is read as one surface of pixels of eight elements (16 bytes), so no
stride between surfaces counts, of which several readings exist. The words are those that ran on both drivers
[H: GRN, two-buffer elementwise operations and look-up passes], with one line of pixels, as they were
measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from rockledge.errors import NpuError
from rockledge.npu.isa import DPU_PRECISION, ENABLE_FLYING, OUTPUT_TO_MEMORY, STAGE_ALU, encode
from rockledge.npu.layout import ATOM_BYTES
from rockledge.npu.lut import REACH, Table
from rockledge.npu.programs.tile_program import BURST, STAGE_OFF, Write, complete, dpu_writes
from rockledge.npu.stream import Address, Program, build

HALF_BYTES: Final = 2
PIXEL: Final = ATOM_BYTES // HALF_BYTES  # elements
LARGEST_BLOCK: Final = 4096 * PIXEL  # elements; wider passes corrupted their tail [H: GRN]
FP16: Final = {precision.name: code for code, precision in DPU_PRECISION.items()}["fp16"]
_INT16: Final = {precision.name: code for code, precision in DPU_PRECISION.items()}["int16"]
PIPELINE: Final = encode("DPU_DATA_FORMAT", in_precision=FP16, proc_precision=FP16, out_precision=FP16)
EXPONENT_FACTOR: Final = 1477.0
TO_FP16: Final = encode("DPU_OUT_CVT_SCALE", scale=1, fp32_to_fp16=1)
_STAGE_ALU: Final = {name: code for code, name in STAGE_ALU.items()}
_LUT_MODE: Final = 0x68  # both tables, side by the sign: the only known mode [H]
_SELECT: Final = 5


class Combine(Enum):
    """What the elementwise stage makes of two operands: exact in fp32, rounded once to fp16 [H: GRN]."""

    ADD = "add"
    MAX = "max"
    MIN = "min"
    MULTIPLY = "multiply"


_EW_ALU: Final = {Combine.MAX: 0, Combine.MIN: 1, Combine.ADD: 2}


@dataclass(frozen=True)
class FirstStage:
    """What the DPU's first stage does to the main operand, in fp32: `alu` with `operand`, then `multiplier`.

    `alu`: "max", "min", "add", "subtract", or None for none; `multiplier` is an fp16, or None.
    """

    alu: str | None = None
    operand: float = 0.0
    multiplier: float | None = None


@dataclass(frozen=True)
class ExponentBits:
    """How a product's results become e^(result - shift): fp16 bits, stored as an int16 [H: HAP].

    fp32 result * 1477 + (15300.624 - 1477 shift), where 1477 is 1024 / ln 2 and 15360 are the bits of 1;
    below 0 it is 0; then the elementwise stage; then the nearest integer. By Schraudolph's line (Neural
    Computation 11, 1999) normal results are 4 % below to 2 % above e^x.
    """

    shift: float

    @property
    def addition(self) -> float:
        return float(np.float32(15300.624 - EXPONENT_FACTOR * self.shift))


def exponent_writes(bits: ExponentBits) -> Iterator[Write]:
    """Both stages and the output conversion."""
    yield (
        "DPU_DATA_FORMAT",
        encode("DPU_DATA_FORMAT", in_precision=FP16, proc_precision=FP16, out_precision=_INT16),
    )
    yield from first_stage_writes(FirstStage(multiplier=EXPONENT_FACTOR))
    yield "DPU_BN_CFG", encode("DPU_BN_CFG", alu_algorithm=_STAGE_ALU["add"], mul_bypass=1)
    yield "DPU_BN_ALU_CFG", single_bits(bits.addition)
    yield "DPU_OUT_CVT_SCALE", encode("DPU_OUT_CVT_SCALE", scale=1)


def elementwise_fields(combine: Combine) -> dict[str, int]:
    """The fields of DPU_EW_CFG: fp16 operands from memory, one for each element.

    Addition, maximum and minimum need the operand's conversion, multiplication needs it bypassed [H].
    """
    fields = {"data_mode": 1, "edata_size": 2, "relu_bypass": 1, "lut_bypass": 1, "op_source": 1}
    if combine is Combine.MULTIPLY:
        return {**fields, "op_type": 1, "op_cvt_bypass": 1}
    return {**fields, "alu_algorithm": _EW_ALU[combine]}


def first_stage_writes(first: FirstStage | None) -> Iterator[Write]:
    """The registers of the first stage; nothing when it is off."""
    if first is None:
        return
    fields = {**STAGE_OFF, "bypass": 0}
    if first.alu is not None:
        fields |= {"alu_bypass": 0, "alu_algorithm": _STAGE_ALU[first.alu]}
        yield "DPU_BS_ALU_CFG", single_bits(first.operand)
    if first.multiplier is not None:
        fields["mul_bypass"] = 0
        yield "DPU_BS_MUL_CFG", encode("DPU_BS_MUL_CFG", operand=half_bits(first.multiplier))
    yield "DPU_BS_CFG", encode("DPU_BS_CFG", **fields)


def pair_program(
    combine: Combine,
    elements: int,
    main: Address,
    operand: Address,
    to: Address,
    first: FirstStage | None = None,
) -> Program:
    """fp16 `to` = first(`main`) combined with `operand`, `elements` each, a multiple of 8 up to 32,768.

    Computed in fp32 and rounded once. `to` may be `main` or `operand`: each atom is read before it is
    written [I]. Raises NpuError for another size.
    """
    _check(elements)
    writes = [
        *_flying_writes(elements, main, to),
        *first_stage_writes(first),
        ("DPU_EW_CFG", encode("DPU_EW_CFG", **elementwise_fields(combine))),
        ("DPU_RDMA_ERDMA_CFG", encode("DPU_RDMA_ERDMA_CFG", data_mode=1, data_size=2)),
        ("DPU_RDMA_EW_BASE_ADDR", operand),
        ("DPU_RDMA_EW_SURF_STRIDE", elements * HALF_BYTES),
    ]
    return build(complete(writes, ("DPU", "DPU_RDMA")), ENABLE_FLYING)


def table_program(table: Table, elements: int, main: Address, to: Address) -> Program:
    """fp16 `to` = table(`main`), `elements` each, a multiple of 8 up to 32,768.

    It loads its own entries: other programs' tables stay in a core, and mainline starts every program by
    itself. Registers as in GRN's look-up pass; a clamp of the inputs is the first stage's. Raises NpuError
    for another size.
    """
    _check(elements)
    first = None
    if table.least is not None:
        first = FirstStage("max", table.least)
    elif table.most is not None:
        first = FirstStage("min", table.most)
    writes = [
        *_flying_writes(elements, main, to),
        *first_stage_writes(first),
        ("DPU_BN_CFG", encode("DPU_BN_CFG", alu_algorithm=_STAGE_ALU["add"], relu_bypass=1)),
        ("DPU_BN_ALU_CFG", single_bits(table.addition)),
        ("DPU_BN_MUL_CFG", encode("DPU_BN_MUL_CFG", operand=half_bits(table.multiplier))),
        ("DPU_EW_CFG", encode("DPU_EW_CFG", relu_bypass=1, op_cvt_bypass=1)),
        ("DPU_OUT_CVT_OFFSET", table.offset),
        ("DPU_OUT_CVT_SHIFT", encode("DPU_OUT_CVT_SHIFT", cvt_type=1, minus_exp=table.exponent)),
        ("DPU_LUT_CFG", _LUT_MODE),
        ("DPU_LUT_INFO", encode("DPU_LUT_INFO", le_select=_SELECT, lo_select=_SELECT)),
        ("DPU_LUT_LE_START", -REACH & 0xFFFFFFFF),
        ("DPU_LUT_LO_END", REACH),
        ("DPU_RDMA_ERDMA_CFG", encode("DPU_RDMA_ERDMA_CFG", disable=1)),
    ]
    whole = complete(writes, ("DPU", "DPU_RDMA"))
    pointers = [w for w in whole if w[0].endswith("S_POINTER")]
    rest = [w for w in whole if not w[0].endswith("S_POINTER") and not w[0].startswith("DPU_LUT_ACCESS")]
    return build([*pointers, *_entries(table), *rest], ENABLE_FLYING)


def single_bits(value: float) -> int:
    """The bits of an fp32."""
    return int(np.array(value, np.float32).view(np.uint32))


def half_bits(value: float) -> int:
    """The bits of an fp16. Raises NpuError for a number that is none."""
    with np.errstate(over="ignore"):
        half = np.float16(value)
    if float(half) != value:
        raise NpuError(f"a register takes fp16 numbers, but {value:g} is none; round it first")
    return int(half.view(np.uint16))


def _entries(table: Table) -> Iterator[Write]:
    for number, entries in enumerate((table.negative, table.positive)):
        yield "DPU_LUT_ACCESS_CFG", encode("DPU_LUT_ACCESS_CFG", write=1, table=number)
        for entry in entries:
            yield "DPU_LUT_ACCESS_DATA", entry


def _flying_writes(elements: int, main: Address, to: Address) -> Iterator[Write]:
    """One line of pixels from memory to memory, fp16 to fp16."""
    yield (
        "DPU_FEATURE_MODE_CFG",
        encode("DPU_FEATURE_MODE_CFG", burst_len=BURST, output_mode=OUTPUT_TO_MEMORY, flying_mode=1),
    )
    yield "DPU_DATA_FORMAT", PIPELINE
    yield from dpu_writes(to, (elements // PIXEL - 1, 0, PIXEL - 1), 0, surface=elements * HALF_BYTES)
    yield "DPU_OUT_CVT_SCALE", TO_FP16
    yield "DPU_RDMA_SRC_BASE_ADDR", main
    yield (
        "DPU_RDMA_FEATURE_MODE_CFG",
        encode(
            "DPU_RDMA_FEATURE_MODE_CFG",
            in_precision=FP16,
            proc_precision=FP16,
            burst_len=BURST,
            fp16_to_fp32=1,
            flying_mode=1,
        ),
    )


def _check(elements: int) -> None:
    if not 1 <= elements <= LARGEST_BLOCK or elements % PIXEL:
        raise NpuError(
            f"a block has {elements} fp16 elements, expected a multiple of {PIXEL} up to {LARGEST_BLOCK}; "
            "split it"
        )
