"""Where CNA reads the operands of a convolution, how their bytes become numbers, and what stays for reuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge.npu.layout import ATOM_BYTES, NATIVE
from rockledge_npu_lab.emulation.conv_buffer import BANK_BYTES
from rockledge_npu_lab.emulation.conv_setup import Convolution
from rockledge_npu_lab.emulation.memory import Memory, Window, window
from rockledge_npu_lab.emulation.options import Options, Tf32Input
from rockledge_npu_lab.emulation.register_file import Snapshot

# How the bytes of an operand are read; int4 comes as bytes of two.
_STORED: Final[dict[str, np.dtype[Any]]] = {
    "int4": np.dtype(np.uint8),
    "int8": np.dtype(np.int8),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "tf32": np.dtype(np.uint32),
}


@dataclass
class Buffer:
    """What the convolution buffer of a core holds: the last tile and the last kernels of this kick."""

    features: tuple[tuple[object, ...], NDArray[Any]] | None = None
    weights: tuple[tuple[object, ...], NDArray[Any]] | None = None


def read_features(setup: Convolution, registers: Snapshot, memory: Memory, buffer: Buffer) -> NDArray[Any]:
    """[surfaces, pixels, elements of an atom]: int8, or float64."""
    if setup.keep_features and setup.keep_weights:
        raise registers.refuse("reuse", "CNA_CBUF_CON0", "both reuse bits are set, expected at most one")
    windows = feature_windows(setup)
    key = (setup.kind.name, setup.width, setup.height, setup.channels, tuple(windows))
    if setup.keep_features:
        if buffer.features is None or buffer.features[0] != key:
            raise registers.refuse(
                "reuse", "CNA_CBUF_CON0", "data_reuse is set, but no program of this kick left this tile"
            )
        return buffer.features[1]
    parts = [registers.read(memory, "CNA_FEATURE_DATA_ADDR", part) for part in windows]
    flat = [part.reshape(len(part), -1, part.shape[-1]) for part in parts]
    values = _decode(
        flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1), setup.kind, registers.options
    )
    buffer.features = key, values.copy() if values.base is not None else values
    return buffer.features[1]


def read_weights(setup: Convolution, registers: Snapshot, memory: Memory, buffer: Buffer) -> NDArray[Any]:
    """[N / group, K / run, group, run] (depthwise: [bytes]): int8, or float64."""
    key = (setup.kind.name, setup.depthwise, setup.channels, setup.kernels, setup.weights)
    if setup.keep_weights:
        if buffer.weights is None or buffer.weights[0] != key:
            raise registers.refuse(
                "reuse",
                "CNA_CBUF_CON0",
                "weight_reuse is set, but no program of this kick left these kernels",
            )
        return buffer.weights[1]
    dtype = _STORED[setup.kind.name]
    count = setup.weight_bytes // dtype.itemsize
    wanted = window(setup.weights, (count,), (dtype.itemsize,), dtype)
    stored = registers.read(memory, "CNA_DCOMP_ADDR0", wanted)
    values = _decode(stored, setup.kind, registers.options)
    if not setup.depthwise:
        native = NATIVE[setup.kind.name]
        values = values.reshape(
            setup.kernels // native.group, setup.channels // native.run, native.group, native.run
        )
    # Weights are streamed through their banks: only what fits there whole can be used again.
    fits = setup.weight_bytes <= registers.field("CNA_CBUF_CON0", "weight_bank") * BANK_BYTES
    buffer.weights = (key, values.copy()) if fits else None
    return values


def feature_windows(setup: Convolution) -> list[Window]:
    """Where the atoms of the input lie: windows [surfaces, pixels.., elements], rows in order.

    Without GROUP_LINE_OFF the atom of line h and column w is floor(h / 4) * DMA_CON1 + (h mod 4) * W + w;
    with it h * DMA_CON1 + w [I], checked on all golden programs [E].
    """
    dtype = _STORED[setup.kind.name]
    elements = ATOM_BYTES // dtype.itemsize
    surfaces = -(-setup.channels * setup.kind.bits // (8 * ATOM_BYTES))
    outer, inner = setup.surface_stride, dtype.itemsize
    lines, line_bytes = setup.height, setup.width * ATOM_BYTES

    def part(base: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Window:
        return window(base, (surfaces, *shape, elements), (outer, *strides, inner), dtype)

    if setup.row_major:
        return [part(setup.features, (lines, setup.width), (setup.line_stride, ATOM_BYTES))]
    if lines <= 4 or setup.line_stride == 4 * line_bytes:
        return [part(setup.features, (lines * setup.width,), (ATOM_BYTES,))]
    fours = lines // 4
    strides = (setup.line_stride, line_bytes, ATOM_BYTES)
    found = [part(setup.features, (fours, 4, setup.width), strides)]
    if lines % 4:
        rest = setup.features + fours * setup.line_stride
        found.append(part(rest, (lines % 4 * setup.width,), (ATOM_BYTES,)))
    return found


def _decode(stored: NDArray[Any], kind: isa.Precision, options: Options) -> NDArray[Any]:
    """The operand as int8, or as float64 (exactly; a signalling NaN becomes a quiet one)."""
    if kind.name == "int8":
        return stored
    if kind.name == "int4":
        pairs = np.stack([stored << 4, stored & 0xF0], axis=-1).view(np.int8) >> 4
        return pairs.reshape(*stored.shape[:-1], 2 * stored.shape[-1])
    if kind.name == "fp16":
        return _widened(stored)
    if kind.name == "bf16":
        return _widened((stored.astype(np.uint32) << 16).view(np.float32))
    if options.tf32_input is Tf32Input.NEAREST:
        # Half of the last kept bit, one less where that bit is even: ties go to even. NaN and infinity stay.
        finite = (stored & 0x7F800000) != 0x7F800000
        stored = np.where(finite, stored + np.uint32(0xFFF) + (stored >> 13 & 1), stored)
    return _widened((stored & np.uint32(0xFFFFE000)).view(np.float32))


def _widened(values: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)
