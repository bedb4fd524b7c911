"""The third stage of the DPU: an operation with a second tensor, or a look-up in the two tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge_npu_lab.emulation.lut import Tables, look_up
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.operands import second_operand
from rockledge_npu_lab.emulation.options import ElementwiseFp16, Subnormals
from rockledge_npu_lab.emulation.register_file import Snapshot
from rockledge_npu_lab.emulation.rounding import flush, saturate

_ALGORITHMS = ("max", "min", "add", "subtract")


def is_lut(registers: Snapshot) -> bool:
    """Whether the stage is a look-up: it then replaces the ALU operation [E]."""
    cfg = registers.fields("DPU_EW_CFG")
    return not cfg["bypass"] and not cfg["lut_bypass"]


def is_active(registers: Snapshot) -> bool:
    """Whether the stage combines the data with an operand."""
    cfg = registers.fields("DPU_EW_CFG")
    return not cfg["bypass"] and not is_lut(registers) and not cfg["op_bypass"]


def check(registers: Snapshot, floating: bool, flying: bool) -> None:
    """Refuses what is not known about the stage before any data are read."""
    cfg = registers.fields("DPU_EW_CFG")
    if cfg["bypass"]:
        return
    relu = not cfg["relu_bypass"] or cfg["relux_enable"]
    if relu or cfg["equal_en"] or cfg["binary_en"] or cfg["mul_prelu"]:
        raise registers.refuse("stage", "DPU_EW_CFG", "expected no ReLU, PReLU, comparison or binary mode")
    if is_lut(registers):
        if not floating:
            raise registers.refuse("stage", "DPU_EW_CFG", "tables are known after the float pipeline only")
        if not flying and registers.field("DPU_DATA_FORMAT", "out_precision") == isa.PRECISIONS["fp16"].dpu:
            registers.flag("lut-fp16", "DPU_EW_CFG", "a product, a table and fp16 output in one program")
        return
    if cfg["op_bypass"]:
        return
    if not cfg["op_source"]:
        raise registers.refuse("stage", "DPU_EW_CFG", "operands from registers, expected them from memory")
    multiply = bool(cfg["op_type"])
    if not multiply and isa.EW_ALU.get(cfg["alu_algorithm"]) not in _ALGORITHMS:
        raise registers.refuse("stage", "DPU_EW_CFG", f"ALU algorithm {cfg['alu_algorithm']} is not modelled")
    # [H] of the float pipeline: the ALU needs the operand conversion, multiplication needs it bypassed.
    if floating and multiply != bool(cfg["op_cvt_bypass"]):
        raise registers.refuse(
            "stage", "DPU_EW_CFG", "float ALU needs op_cvt_bypass 0, float multiplication needs it 1"
        )
    if not cfg["op_cvt_bypass"]:
        scale = registers.fields("DPU_EW_CVT_SCALE")
        plain = (scale["scale"], scale["shift"], scale["truncate"]) == (1, 0, 0)
        if not plain or registers.value("DPU_EW_CVT_OFFSET"):
            raise registers.refuse("stage", "DPU_EW_CVT_SCALE", "expected the operand as it is (scale 1)")


def combine_integer(values: NDArray[np.int64], registers: Snapshot, memory: Memory) -> NDArray[np.int64]:
    """x op operand, saturated to int32 [H]; `values` [pixels, channels] int64."""
    operand, _ = second_operand(registers, memory, values.shape[0], values.shape[1], floating=False)
    return saturate(_operation(registers)(values, operand), 32)


def combine_float(values: NDArray[np.float32], registers: Snapshot, memory: Memory) -> NDArray[np.float32]:
    """x op operand in fp32 (option: x rounded to fp16 first); `values` [pixels, channels]."""
    operand, kind = second_operand(registers, memory, values.shape[0], values.shape[1], floating=True)
    if registers.options.elementwise_fp16 is ElementwiseFp16.ROUND_FIRST and kind.name == "fp16":
        values = values.astype(np.float16).astype(np.float32)
    result: NDArray[np.float32] = _operation(registers)(values, operand)
    return flush(result) if registers.options.subnormals is Subnormals.FLUSH else result


def tabulate(
    values: NDArray[np.float32], negative: NDArray[np.bool_], tables: Tables, registers: Snapshot
) -> NDArray[np.float32]:
    """The tables' 16-bit results as fp32; `negative` chooses the table of each element."""
    return look_up(values, negative, tables, registers).astype(np.float32)


def _operation(registers: Snapshot) -> Any:
    cfg = registers.fields("DPU_EW_CFG")
    if cfg["op_type"]:
        return np.multiply
    name = isa.EW_ALU[cfg["alu_algorithm"]]
    return {"max": np.maximum, "min": np.minimum, "add": np.add, "subtract": np.subtract}[name]
