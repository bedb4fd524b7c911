"""Rows of weights in the native core: turned in place, and rounded to table codes. The GIL is free
meanwhile."""

import ctypes
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rockledge.conversion.nearest import SHARES, normal_tables
from rockledge.formats.bands import groups
from rockledge.formats.hadamard import Rotation
from rockledge.runtime.choices import KERNELS
from rockledge.runtime.native import failure, library

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


class _Tables(ctypes.Structure):
    arrays: tuple[npt.NDArray[np.generic], ...]
    _fields_ = [
        ("errors", ctypes.c_void_p),
        ("nearest", ctypes.c_void_p),
        ("entries", ctypes.c_void_p),
        ("share", ctypes.c_void_p),
        ("shares", ctypes.c_int32),
    ]


@lru_cache(maxsize=4)
def _tables(bits: int) -> _Tables:
    of, shares = normal_tables(bits), np.array(SHARES, np.float32)
    made = _Tables(
        of.errors.ctypes.data, of.nearest.ctypes.data, of.entries.ctypes.data, shares.ctypes.data, len(shares)
    )
    made.arrays = (of.errors, of.nearest, of.entries, shares)  # the core reads them in place
    return made


def round_rows(weights: Float32, bits: int, kernel: str = "auto") -> tuple[UInt8, UInt8, Float32]:
    """What `nearest.round_rows` gives, bit for bit. NativeError where the squares of a row overflow."""
    weights = np.ascontiguousarray(weights, np.float32)
    rows, cols = weights.shape
    codes, index = np.empty((rows, cols), np.uint8), np.empty((rows, groups(cols)), np.uint8)
    scale = np.empty(rows, np.float32)
    places = (codes.ctypes.data, index.ctypes.data, scale.ctypes.data)
    tables = ctypes.byref(_tables(bits))
    if library().rl_round_rows(weights.ctypes.data, rows, cols, tables, *places, KERNELS[kernel]) < 0:
        raise failure()
    return codes, index, scale


def turn(rows: Float32, by: Rotation | int, kernel: str = "auto") -> None:
    """Turns C-contiguous `rows` fp32 [N, K] in place: by a rotation of K channels, or by a normalised
    Hadamard transform of every so many neighbours."""
    assert rows.flags.c_contiguous
    assert rows.dtype == np.float32
    count, width = rows.shape
    addresses: tuple[int | None, int | None] = (None, None)
    if isinstance(by, Rotation):
        signs, mix = (np.ascontiguousarray(values, np.float32) for values in (by.signs, by.mix))
        block, addresses = by.block, (signs.ctypes.data, mix.ctypes.data)
    else:
        block = by
    if library().rl_turn_rows(rows.ctypes.data, count, width, block, *addresses, KERNELS[kernel]) < 0:
        raise failure()
