"""The end of the DPU: conversion to the stored type, and where every element goes.

The byte address of pixel m and channel n is
DST_BASE + floor(n / G) * SURFACE_ADD + floor((n mod G) / c) * DST_SURF_STRIDE + m * 16 * (1 + NOTCH)
+ (n mod c) * bytes, with c channels in 16 bytes and G = (SIZE_E + 1) * c [I], checked on all golden
programs [E].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge.npu.layout import ATOM_BYTES
from rockledge_npu_lab.emulation.dpu_types import STORED
from rockledge_npu_lab.emulation.memory import AccessError, Memory, Window, window
from rockledge_npu_lab.emulation.options import FloatToInt16, Fp16Overflow, Int16Overflow, Notch
from rockledge_npu_lab.emulation.register_file import Snapshot, signed
from rockledge_npu_lab.emulation.rounding import INT_RANGE, leaves, saturate, shift_right, to_bf16, wrap

_FROM_INTEGER: Final = ("int8", "int16", "int32", "fp32")
_FROM_FLOAT: Final = ("fp16", "bf16", "fp32", "int16")
_INT8_GROUP: Final = 32
_MAX_SHIFT: Final = 63
_FP16_MAX: Final = 65504.0


@dataclass(frozen=True)
class Destination:
    """The windows [groups, atoms, pixels, channels of an atom] that a program writes, and their channels."""

    kind: isa.Precision
    parts: tuple[tuple[slice, Window], ...]


def read_destination(
    registers: Snapshot, memory: Memory, pixels: int, channels: int, floating: bool
) -> Destination:
    """Where the output goes. Raises StreamError for memory that was not given and for unknown modes."""
    kind = isa.DPU_PRECISION.get(registers.field("DPU_DATA_FORMAT", "out_precision"))
    if kind is None or kind.name not in (_FROM_FLOAT if floating else _FROM_INTEGER):
        name = "unknown" if kind is None else kind.name
        pipeline = "float" if floating else "integer"
        raise registers.refuse("type", "DPU_DATA_FORMAT", f"{name} output of the {pipeline} pipeline")
    dtype = STORED[kind.name]
    atom = ATOM_BYTES // dtype.itemsize
    if kind.name == "int8" and channels % _INT8_GROUP:
        raise registers.refuse(
            "partial-int8-group",
            "DPU_DATA_CUBE_CHANNEL",
            f"{channels} int8 channels, expected a multiple of {_INT8_GROUP}",
        )
    if channels % atom:
        raise registers.refuse(
            "multiple", "DPU_DATA_CUBE_CHANNEL", f"{channels} channels, expected a multiple of {atom}"
        )
    base = registers.value("DPU_DST_BASE_ADDR")
    if base % ATOM_BYTES:
        raise registers.refuse(
            "alignment", "DPU_DST_BASE_ADDR", f"{base:#x} is not a multiple of {ATOM_BYTES}"
        )
    ow = registers.fields("DPU_BS_OW_CFG")
    if len({ow["size_e_0"], ow["size_e_1"], ow["size_e_2"]}) != 1:
        raise registers.refuse(
            "size-e", "DPU_BS_OW_CFG", "the three size_e fields differ, expected one value"
        )
    group = (ow["size_e_0"] + 1) * atom
    add = registers.field("DPU_SURFACE_ADD", "stride") * ATOM_BYTES
    surface = registers.field("DPU_DST_SURF_STRIDE", "stride") * ATOM_BYTES
    pixel = ATOM_BYTES * (1 + _notch(registers))
    parts = []
    full = channels // group
    for first, groups, atoms in ((0, full, group // atom), (full, 1, channels % group // atom)):
        if groups and atoms:
            strides = (add, surface, pixel, dtype.itemsize)
            place = window(base + first * add, (groups, atoms, pixels, atom), strides, dtype)
            parts.append((slice(first * group, first * group + groups * atoms * atom), place))
    for _, place in parts:
        try:
            memory.check(place)
        except AccessError as fault:
            raise registers.refuse("memory", "DPU_DST_BASE_ADDR", str(fault)) from None
        if place.overlaps_itself():
            raise registers.refuse(
                "overlap", "DPU_SURFACE_ADD", "two elements of the output share an address"
            )
    _check_conversion(registers, kind, floating)
    return Destination(kind, tuple(parts))


def store(values: NDArray[Any], destination: Destination, memory: Memory) -> None:
    """Writes [pixels, channels] of the stored type."""
    for channels, place in destination.parts:
        groups, atoms, pixels, atom = place.shape
        part = values[:, channels].reshape(pixels, groups, atoms, atom)
        memory.write(place, part.transpose(1, 2, 0, 3))


def convert_integer(
    values: NDArray[Any], kind: isa.Precision, registers: Snapshot, int4: bool
) -> NDArray[Any]:
    """saturate(round(x * SCALE / 2^SHIFT) + OFFSET) as the stored integer; fp32 is a cast of x [H].

    `int4` means that x are int4 products, whose overflow of int16 has an option of its own.
    """
    if kind.name == "fp32":
        return values.astype(np.float32)
    scale = signed(registers.field("DPU_OUT_CVT_SCALE", "scale"), 16)
    cvt = registers.fields("DPU_OUT_CVT_SHIFT")
    offset = registers.signed("DPU_OUT_CVT_OFFSET")
    if kind.name == "int32" and (scale, cvt["shift"], offset) == (1, 0, 0):
        return values.astype(np.int32, copy=False)
    wide = values.astype(np.int64) * scale
    wide = shift_right(wide, cvt["shift"], registers.options.requantise, bool(cvt["cvt_round"])) + offset
    bits = kind.bits
    if int4 and kind.name == "int16" and leaves(wide, 16):
        registers.flag("overflow", "DPU_DATA_FORMAT", "an int4 product does not fit int16")
        if registers.options.int16_overflow is Int16Overflow.WRAP:
            return wrap(wide, bits).astype(STORED[kind.name])
    return saturate(wide, bits).astype(STORED[kind.name])


def convert_float(values: NDArray[np.float32], kind: isa.Precision, registers: Snapshot) -> NDArray[Any]:
    """The stored type of fp32: fp32 as it is [E]; 16-bit floats as (x + OFFSET) * 2^-MINUS_EXP * SCALE,
    rounded to nearest even; int16 rounded and saturated.
    """
    if kind.name == "fp32":
        return values
    if kind.name == "int16":
        how = np.trunc if registers.options.float_to_int16 is FloatToInt16.TRUNCATE else np.rint
        low, high = INT_RANGE[16]
        whole: NDArray[np.float32] = np.clip(how(np.nan_to_num(values, nan=0.0)), low, high)
        return whole.astype(np.int16)
    offset = np.float32(registers.signed("DPU_OUT_CVT_OFFSET"))
    scale = signed(registers.field("DPU_OUT_CVT_SCALE", "scale"), 16)
    exponent = registers.field("DPU_OUT_CVT_SHIFT", "minus_exp")
    values = (values + offset) * np.float32(2.0**-exponent) * np.float32(scale)
    if kind.name == "bf16":
        return to_bf16(values)
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    lost = np.isinf(stored) & np.isfinite(values)
    if lost.any():
        registers.flag("overflow", "DPU_DATA_FORMAT", "a result does not fit fp16")
        if registers.options.fp16_overflow is Fp16Overflow.LARGEST:
            stored = np.where(lost, np.copysign(np.float16(_FP16_MAX), stored), stored)
    return stored


def _notch(registers: Snapshot) -> int:
    """Atoms skipped after each pixel. Why there are two fields is not known [?]."""
    notch = registers.fields("DPU_DATA_CUBE_NOTCH")
    if notch["notch_0"] != notch["notch_1"]:
        if registers.options.notch is Notch.REQUIRE_EQUAL:
            raise registers.refuse(
                "notches",
                "DPU_DATA_CUBE_NOTCH",
                f"{notch['notch_0']} and {notch['notch_1']}, expected one value",
            )
        registers.flag("notches", "DPU_DATA_CUBE_NOTCH", f"{notch['notch_0']} and {notch['notch_1']}")
    return notch["notch_1" if registers.options.notch is Notch.SECOND else "notch_0"]


def _check_conversion(registers: Snapshot, kind: isa.Precision, floating: bool) -> None:
    scale = registers.fields("DPU_OUT_CVT_SCALE")
    cvt = registers.fields("DPU_OUT_CVT_SHIFT")
    if not floating and kind.name != "fp32" and cvt["shift"] > _MAX_SHIFT:
        raise registers.refuse(
            "output-conversion",
            "DPU_OUT_CVT_SHIFT",
            f"a shift of {cvt['shift']}, expected at most {_MAX_SHIFT}",
        )
    # Whether an exact cast would pass the converter is not known: only a converter that does nothing is.
    silent = not registers.value("DPU_OUT_CVT_OFFSET") and not cvt["shift"] and not cvt["minus_exp"]
    cast = kind.name == "fp32" or (floating and kind.name == "int16")
    if cast and (signed(scale["scale"], 16) not in (0, 1) or not silent):
        raise registers.refuse(
            "output-conversion", "DPU_OUT_CVT_SCALE", f"scaling into {kind.name}, expected scale 1 alone"
        )
    if floating and (kind.name == "fp16") != bool(scale["fp32_to_fp16"]):
        raise registers.refuse(
            "output-conversion",
            "DPU_OUT_CVT_SCALE",
            f"fp32_to_fp16 is {scale['fp32_to_fp16']} for {kind.name} output",
        )
