"""What DPU_RDMA reads from memory as cubes: the main input of a flying program, and elementwise operands."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge.npu.layout import ATOM_BYTES
from rockledge_npu_lab.emulation.dpu_types import STORED
from rockledge_npu_lab.emulation.memory import Memory, Window, window
from rockledge_npu_lab.emulation.options import ErdmaPitch, Subnormals
from rockledge_npu_lab.emulation.register_file import Snapshot
from rockledge_npu_lab.emulation.rounding import flush, from_bf16

_FLOAT_OF_BITS: Final = {16: "fp16", 32: "fp32"}
_INTEGER_OF_BITS: Final = {8: "int8", 16: "int16", 32: "int32"}
# COMB_USE as seen: 0, MRDMA and ERDMA each for itself; 5, both fetch one operand beside a product.
_APART: Final = 0
_TOGETHER: Final = 5


def check_feeding(registers: Snapshot, flying: bool) -> None:
    """Refuses a DPU_RDMA that is enabled but waits for nothing, and a shape that is not the DPU's."""
    mode = registers.fields("DPU_RDMA_FEATURE_MODE_CFG")
    if mode["flying_mode"] != flying:
        raise registers.refuse(
            "shape", "DPU_RDMA_FEATURE_MODE_CFG", f"flying_mode is {mode['flying_mode']}, the DPU's is not"
        )
    if mode["comb_use"] not in (_APART, _TOGETHER) or (flying and mode["comb_use"] != _APART):
        raise registers.refuse(
            "stage", "DPU_RDMA_FEATURE_MODE_CFG", f"comb_use is {mode['comb_use']}, expected 0 (or 5 fused)"
        )
    fed = flying or mode["comb_use"] == _TOGETHER
    if fed == bool(mode["mrdma_disable"]):
        text = "MRDMA is on, but feeds nothing" if not fed else "MRDMA is off, but its data are used"
        rule = "unread-operand" if fed else "unfed-rdma"
        raise registers.refuse(rule, "DPU_RDMA_FEATURE_MODE_CFG", text)
    for name, own in (
        ("DPU_RDMA_DATA_CUBE_WIDTH", registers.field("DPU_DATA_CUBE_WIDTH", "width_minus_1")),
        ("DPU_RDMA_DATA_CUBE_HEIGHT", registers.field("DPU_DATA_CUBE_HEIGHT", "height_minus_1")),
        ("DPU_RDMA_DATA_CUBE_CHANNEL", registers.field("DPU_DATA_CUBE_CHANNEL", "channels_minus_1")),
    ):
        found = next(number for field, number in registers.fields(name).items() if field.endswith("_minus_1"))
        if found != own:
            raise registers.refuse("shape", name, f"it is {found} (less 1), expected {own} as in the DPU")
    notch = registers.field("DPU_RDMA_DATA_CUBE_HEIGHT", "ew_line_notch")
    if notch or registers.value("DPU_RDMA_SRC_DMA_CFG"):
        raise registers.refuse("stage", "DPU_RDMA_SRC_DMA_CFG", "expected no line notches, no pooling (0)")


def main_input(registers: Snapshot, memory: Memory, pixels: int, channels: int) -> NDArray[Any]:
    """[pixels, channels] that MRDMA reads for a flying program, in int64 or fp32."""
    mode = registers.fields("DPU_RDMA_FEATURE_MODE_CFG")
    own = registers.fields("DPU_DATA_FORMAT")
    codes = (own["in_precision"], own["proc_precision"])
    if (mode["in_precision"], mode["proc_precision"]) != codes:
        raise registers.refuse(
            "type", "DPU_RDMA_FEATURE_MODE_CFG", f"its precisions are not the DPU's in and processing {codes}"
        )
    kind = isa.DPU_PRECISION.get(mode["in_precision"])
    if kind is None or kind.name not in STORED:
        raise registers.refuse("type", "DPU_RDMA_FEATURE_MODE_CFG", f"input of type {mode['in_precision']}")
    pitch = pixels * ATOM_BYTES + _stride(registers, "DPU_RDMA_SURF_NOTCH")
    wanted = _surfaces(registers, "DPU_RDMA_SRC_BASE_ADDR", kind, pixels, channels, pitch)
    stored = registers.read(memory, "DPU_RDMA_SRC_BASE_ADDR", wanted)
    return _values(_channels_last(stored), kind, registers)


def second_operand(
    registers: Snapshot, memory: Memory, pixels: int, channels: int, floating: bool
) -> tuple[NDArray[Any], isa.Precision]:
    """The elementwise operand, [pixels, channels] or [1, channels], in int64 or fp32, and its stored type.

    Beside a product (COMB_USE 5) MRDMA fetches the even surfaces and ERDMA the odd ones [E].
    """
    if not isa.BLOCK_BY_NAME["DPU_RDMA"].runs(registers.enable):
        raise registers.refuse("unread-operand", "DPU_EW_CFG", "an operand from memory, but DPU_RDMA is off")
    cfg = registers.fields("DPU_RDMA_ERDMA_CFG")
    if cfg["disable"]:
        raise registers.refuse(
            "unread-operand", "DPU_RDMA_ERDMA_CFG", "ERDMA is off, but its operand is used"
        )
    if cfg["surf_mode"] or cfg["nonalign"] or cfg["ov4k"]:
        raise registers.refuse("stage", "DPU_RDMA_ERDMA_CFG", "expected plain surfaces")
    if cfg["data_mode"] != registers.field("DPU_EW_CFG", "data_mode"):
        raise registers.refuse("shape", "DPU_RDMA_ERDMA_CFG", "its data_mode is not that of the EW stage")
    bits = isa.EW_DATA_BITS[cfg["data_size"]]
    name = (_FLOAT_OF_BITS if floating else _INTEGER_OF_BITS).get(bits)
    if name is None or (floating and bits == 16 and registers.field("DPU_DATA_FORMAT", "in_precision") == 3):
        raise registers.refuse("stage", "DPU_RDMA_ERDMA_CFG", f"operands of {bits} bits in this pipeline")
    kind = isa.PRECISIONS[name]
    if isa.EW_DATA_MODES.get(cfg["data_mode"]) == "per channel":
        dtype = STORED[name]
        row = window(registers.value("DPU_RDMA_EW_BASE_ADDR"), (channels,), (dtype.itemsize,), dtype)
        stored = registers.read(memory, "DPU_RDMA_EW_BASE_ADDR", row)
        return _values(stored[None, :], kind, registers), kind
    if isa.EW_DATA_MODES.get(cfg["data_mode"]) != "per pixel":
        raise registers.refuse("stage", "DPU_RDMA_ERDMA_CFG", "expected operands per channel or per pixel")
    together = registers.field("DPU_RDMA_FEATURE_MODE_CFG", "comb_use") == _TOGETHER
    pitch = _erdma_pitch(registers, pixels)
    if not together:
        wanted = _surfaces(registers, "DPU_RDMA_EW_BASE_ADDR", kind, pixels, channels, pitch)
        stored = registers.read(memory, "DPU_RDMA_EW_BASE_ADDR", wanted)
        return _values(_channels_last(stored), kind, registers), kind
    atom = ATOM_BYTES * 8 // kind.bits
    surfaces = channels // atom
    even_pitch = pixels * ATOM_BYTES + _stride(registers, "DPU_RDMA_SURF_NOTCH")
    found = np.empty((surfaces, pixels, atom), STORED[name])
    for first, register, step in (
        (0, "DPU_RDMA_SRC_BASE_ADDR", even_pitch),
        (1, "DPU_RDMA_EW_BASE_ADDR", pitch),
    ):
        part = found[first::2]
        wanted = _surfaces(registers, register, kind, pixels, len(part) * atom, step)
        part[...] = registers.read(memory, register, wanted)
    return _values(_channels_last(found), kind, registers), kind


def _stride(registers: Snapshot, name: str) -> int:
    return registers.field(name, "stride") * ATOM_BYTES


def _erdma_pitch(registers: Snapshot, pixels: int) -> int:
    """Bytes between the surfaces that ERDMA fetches; golden programs do not distinguish the readings."""
    stride, notch = (_stride(registers, f"DPU_RDMA_EW_SURF_{part}") for part in ("STRIDE", "NOTCH"))
    cube = pixels * ATOM_BYTES
    pitches = {
        ErdmaPitch.STRIDE_PLUS_NOTCH: stride + notch,
        ErdmaPitch.TWICE_STRIDE: 2 * stride,
        ErdmaPitch.TWICE_NOTCH: 2 * notch,
        ErdmaPitch.CUBE_PLUS_STRIDE: cube + stride,
        ErdmaPitch.CUBE_PLUS_NOTCH: cube + notch,
    }
    return pitches[registers.options.erdma_pitch]


def _surfaces(
    registers: Snapshot, name: str, kind: isa.Precision, pixels: int, channels: int, pitch: int
) -> Window:
    dtype = STORED[kind.name]
    atom = ATOM_BYTES // dtype.itemsize
    if channels % atom:
        raise registers.refuse(
            "multiple", "DPU_DATA_CUBE_CHANNEL", f"{channels} channels, expected a multiple of {atom}"
        )
    base = registers.value(name)
    if base % ATOM_BYTES:
        raise registers.refuse("alignment", name, f"{base:#x} is not a multiple of {ATOM_BYTES}")
    return window(base, (channels // atom, pixels, atom), (pitch, ATOM_BYTES, dtype.itemsize), dtype)


def _channels_last(stored: NDArray[Any]) -> NDArray[Any]:
    surfaces, pixels, atom = stored.shape
    return stored.transpose(1, 0, 2).reshape(pixels, surfaces * atom)


def _values(stored: NDArray[Any], kind: isa.Precision, registers: Snapshot) -> NDArray[Any]:
    if kind.name.startswith("int"):
        return stored.astype(np.int64)
    if kind.name == "bf16":
        return from_bf16(stored)
    if registers.options.subnormals is Subnormals.FLUSH:
        tiny = np.abs(stored) < np.finfo(stored.dtype).tiny
        stored = np.where(tiny, np.copysign(stored.dtype.type(0), stored), stored)
        return flush(stored.astype(np.float32))
    return stored.astype(np.float32)
