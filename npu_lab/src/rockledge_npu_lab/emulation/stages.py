"""The first two stages of the DPU, BS and BN: an ALU and a multiplier with operands a channel, then ReLU.

BS adds first and multiplies then; BN multiplies first (as the LUT programs use it) [E: not distinguished].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge_npu_lab.emulation.memory import Memory, window
from rockledge_npu_lab.emulation.options import BnOrder, Int32Overflow, NegativeShift, Subnormals
from rockledge_npu_lab.emulation.register_file import Snapshot, signed
from rockledge_npu_lab.emulation.rounding import flush, leaves, saturate, shift_right, wrap

Stage = Literal["BS", "BN"]

# DATA_USE of BRDMA: the ALU's operand alone, dense; or all three in records of eight channels.
_DATA_USE_ALU: Final = 1
_DATA_USE_ALL: Final = 7
_RECORD: Final = np.dtype([("alu", "<i4", 8), ("offset", "<i2", 8), ("multiplier", "<i2", 8)])


@dataclass(frozen=True)
class Operands:
    """What a stage works with; each one number, or [channels]. None: that part is bypassed."""

    alu: str | None
    alu_operand: NDArray[Any] | float | int
    multiplier: NDArray[Any] | float | int | None
    shift: int
    negative_shift: int
    prelu: bool
    relu: bool
    limit: float | int | None
    input_factor: NDArray[np.int64] | int
    multiply_first: bool


def read_operands(
    registers: Snapshot, memory: Memory, stage: Stage, channels: int, floating: bool
) -> Operands | None:
    """The stage as the registers describe it; None when it is bypassed as a whole.

    Raises StreamError for operands that no block would deliver and for what is not known.
    """
    name = f"DPU_{stage}_CFG"
    cfg = registers.fields(name)
    ow = registers.fields("DPU_BS_OW_CFG")["ow_source"]
    ow_op = signed(registers.field("DPU_BS_OW_OP", "value"), 16)
    if cfg["bypass"]:
        if stage == "BS" and (ow or ow_op):
            raise registers.refuse("stage", "DPU_BS_OW_CFG", "weight offsets need the first stage active")
        return None
    mul = registers.fields(f"DPU_{stage}_MUL_CFG")
    alu_dma = not cfg["alu_bypass"] and bool(cfg["alu_source"])
    mul_dma = not cfg["mul_bypass"] and bool(mul["source"])
    if stage == "BN" and (alu_dma or mul_dma or registers.field("DPU_RDMA_NRDMA_CFG", "data_use")):
        raise registers.refuse("bn-dma", name, "the second stage reads operands from memory")
    alu_operand: NDArray[Any] | float | int = _number(registers, f"DPU_{stage}_ALU_CFG", floating)
    multiplier: NDArray[Any] | float | int | None = None
    factor: NDArray[np.int64] | int = 0
    if alu_dma or mul_dma:
        alu_vector, offsets, mul_vector = _vectors(registers, memory, channels, floating)
        alu_operand = alu_vector if alu_dma else alu_operand
        if mul_dma:
            if mul_vector is None:
                raise registers.refuse(
                    "unread-operand", "DPU_RDMA_BRDMA_CFG", "multipliers are used, but not fetched"
                )
            multiplier = mul_vector
        factor = offsets if ow and offsets is not None else 0
    if stage == "BS" and isinstance(factor, int):
        # A tensor's own offset is in the register, whether or not OW_SRC is set [I].
        factor = ow_op + (1 if registers.options.ow_op_minus_1 and mul_dma else 0)
    if not cfg["mul_bypass"] and multiplier is None:
        multiplier = _factor(mul["operand"], floating)
    if not cfg["mul_bypass"] and (mul["truncate_source"] or (floating and mul["shift"])):
        raise registers.refuse("stage", f"DPU_{stage}_MUL_CFG", "expected no truncate source, no float shift")
    alu = None if cfg["alu_bypass"] else isa.STAGE_ALU.get(cfg["alu_algorithm"])
    if not cfg["alu_bypass"] and alu is None:
        raise registers.refuse("stage", name, f"ALU algorithm {cfg['alu_algorithm']} is not known")
    negative = registers.field("DPU_DATA_FORMAT", f"{stage.lower()}_shift_negative")
    same = registers.options.negative_shift is NegativeShift.SAME
    multiply_first = stage == "BN" and registers.options.bn_order is BnOrder.MULTIPLY_FIRST
    return Operands(
        alu=alu,
        alu_operand=alu_operand,
        multiplier=multiplier,
        shift=mul["shift"],
        negative_shift=mul["shift"] if same else negative,
        prelu=bool(cfg["mul_prelu"]),
        relu=not cfg["relu_bypass"],
        limit=_number(registers, f"DPU_{stage}_RELUX_CMP", floating) if cfg["relux_enable"] else None,
        input_factor=factor,
        multiply_first=multiply_first,
    )


def apply_integer(
    values: NDArray[np.int64], operands: Operands, sums: NDArray[np.int64] | None, registers: Snapshot
) -> NDArray[np.int64]:
    """v = saturate32(round(((x + A + B * S) * C) / 2^s)) with the parts that are active; int64 in and out.

    `sums` [pixels, 1 or channels] are S, the sums of the inputs under each kernel.
    """

    def multiplied(x: NDArray[np.int64]) -> NDArray[np.int64]:
        if operands.multiplier is None:
            return x
        shifts = np.where(x < 0, operands.negative_shift, operands.shift)
        product = x * np.asarray(operands.multiplier, np.int64)
        result = saturate(shift_right(product, shifts, registers.options.requantise, False), 32)
        return np.where(x < 0, result, x) if operands.prelu else result

    if operands.multiply_first:
        values = multiplied(values)
    if operands.alu is not None:
        values = _integer_alu(operands.alu, values, np.asarray(operands.alu_operand, np.int64))
    if sums is not None:
        values = values + np.asarray(operands.input_factor, np.int64) * sums
    if not operands.multiply_first:
        values = multiplied(values)
    values = overflow(values, registers)
    if operands.relu:
        values = np.maximum(values, 0)
    if operands.limit is not None:
        values = np.minimum(values, int(operands.limit))
    return values


def apply_float(values: NDArray[np.float32], operands: Operands, registers: Snapshot) -> NDArray[np.float32]:
    """The same in fp32, each operation rounded; whether ReLUx compares as float is not known [?], it does."""

    def multiplied(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if operands.multiplier is None:
            return x
        product = x * np.asarray(operands.multiplier, np.float32)
        return np.where(x < 0, product, x) if operands.prelu else product

    if operands.multiply_first:
        values = multiplied(values)
    if operands.alu is not None:
        values = _float_alu(operands.alu, values, np.asarray(operands.alu_operand, np.float32))
    if not operands.multiply_first:
        values = multiplied(values)
    if operands.relu:
        values = np.maximum(values, np.float32(0))
    if operands.limit is not None:
        values = np.minimum(values, np.float32(operands.limit))
    return flush(values) if registers.options.subnormals is Subnormals.FLUSH else values


def overflow(values: NDArray[np.int64], registers: Snapshot) -> NDArray[np.int64]:
    """Sums beyond int32: flagged (or an error in strict mode), then wrapped or saturated by the option."""
    if not leaves(values, 32):
        return values
    if registers.options.strict_overflow:
        raise registers.refuse("overflow", None, "a sum does not fit int32")
    registers.flag("overflow", None, "a sum does not fit int32")
    if registers.options.int32_overflow is Int32Overflow.WRAP:
        return wrap(values, 32)
    return saturate(values, 32)


def _integer_alu(name: str, values: NDArray[np.int64], operand: NDArray[np.int64]) -> NDArray[np.int64]:
    if name == "max":
        return np.maximum(values, operand)
    if name == "min":
        return np.minimum(values, operand)
    return values + operand if name == "add" else values - operand


def _float_alu(name: str, values: NDArray[np.float32], operand: NDArray[np.float32]) -> NDArray[np.float32]:
    if name == "max":
        return np.maximum(values, operand)
    if name == "min":
        return np.minimum(values, operand)
    return values + operand if name == "add" else values - operand


def _number(registers: Snapshot, name: str, floating: bool) -> float | int:
    if not floating:
        return registers.signed(name)
    return float(np.array(registers.value(name), np.uint32).view(np.float32))


def _factor(operand: int, floating: bool) -> float | int:
    """A multiplier from its register: int16, or fp16."""
    if not floating:
        return signed(operand, 16)
    return float(np.array(operand, np.uint16).view(np.float16))


def _vectors(
    registers: Snapshot, memory: Memory, channels: int, floating: bool
) -> tuple[NDArray[Any], NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """What BRDMA fetches for each channel: ALU operand, offset (B) and multiplier (C)."""
    if not isa.BLOCK_BY_NAME["DPU_RDMA"].runs(registers.enable):
        raise registers.refuse("unread-operand", "DPU_BS_CFG", "operands from memory, but DPU_RDMA is off")
    use = registers.field("DPU_RDMA_BRDMA_CFG", "data_use")
    base = registers.value("DPU_RDMA_BS_BASE_ADDR")
    if use == _DATA_USE_ALU:
        dtype = np.dtype(np.float32 if floating else np.int32)
        wanted = window(base, (channels,), (4,), dtype)
        return registers.read(memory, "DPU_RDMA_BS_BASE_ADDR", wanted), None, None
    if use == _DATA_USE_ALL and not floating:
        records = -(-channels // 8)
        wanted = window(base, (records, _RECORD.itemsize), (_RECORD.itemsize, 1), np.uint8)
        raw = np.ascontiguousarray(registers.read(memory, "DPU_RDMA_BS_BASE_ADDR", wanted))
        found = raw.reshape(-1).view(_RECORD)
        alu, offset, multiplier = (
            found[part].reshape(-1)[:channels].astype(np.int64) for part in ("alu", "offset", "multiplier")
        )
        return alu, offset, multiplier
    raise registers.refuse(
        "unread-operand", "DPU_RDMA_BRDMA_CFG", f"data_use is {use}, expected 1, or 7 for integers"
    )
