"""Rounding and saturation of the DPU's integers and floats, by the switches of `options`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge_npu_lab.emulation.options import Rounding

Integers = NDArray[np.int64]
Singles = NDArray[np.float32]

INT_RANGE: Final = {bits: (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32)}


def shift_right(values: Integers, shift: int | NDArray[np.int64], how: Rounding, ties_away: bool) -> Integers:
    """values / 2^shift rounded; `ties_away` (a register's bit) outranks the option.

    `shift` 0..63 (one, or an array of the values' shape); |values| < 2^62.
    """
    shifts = np.asarray(shift, np.int64)
    one = np.int64(1)
    half = np.where(shifts > 0, one << np.maximum(shifts - 1, 0), 0)
    if ties_away:
        rounded = np.where(values < 0, -((half - values) >> shifts), (values + half) >> shifts)
    elif how is Rounding.TRUNCATE:
        rounded = values >> shifts
    elif how is Rounding.TIES_UP:
        rounded = (values + half) >> shifts
    else:
        down = values >> shifts
        left = values - (down << shifts)
        rounded = down + ((left > half) | ((left == half) & (half > 0) & (down & 1 == 1)))
    return np.asarray(rounded, np.int64)


def saturate(values: Integers, bits: int) -> Integers:
    """Clamped to signed `bits`."""
    low, high = INT_RANGE[bits]
    return np.clip(values, low, high)


def wrap(values: Integers, bits: int) -> Integers:
    """The low `bits`, signed."""
    half = np.int64(1) << np.int64(bits - 1)
    mask = (half << np.int64(1)) - 1
    return np.asarray(((values + half) & mask) - half, np.int64)


def leaves(values: NDArray[Any], bits: int) -> bool:
    """Whether any integer does not fit signed `bits`."""
    low, high = INT_RANGE[bits]
    return bool(values.size) and bool(values.min() < low or values.max() > high)


def to_bf16(values: Singles) -> NDArray[np.uint16]:
    """fp32 rounded to bf16 (as its 16 bits), ties to even; NaN stays NaN."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    quiet = bits >> 16 | 0x40
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)


def from_bf16(stored: NDArray[np.uint16]) -> Singles:
    """bf16 bits as fp32, exactly."""
    return (stored.astype(np.uint32) << 16).view(np.float32)


def flush(values: Singles) -> Singles:
    """Subnormal fp32 replaced by zeros of their sign."""
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), values), values)
