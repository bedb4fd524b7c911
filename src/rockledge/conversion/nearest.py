"""Rounding a row of weights by itself: the best of a few row scales, for every group the table of normal
weights that loses least, for every weight the nearest entry.

What NumPy does here is the specification; `native_rows` does the same in the native core, bit for bit. Sums
are taken in eight lanes, and those added as the core adds them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rockledge.formats.bands import GROUP, TABLES, groups
from rockledge.formats.gaussian_tables import GAUSSIAN_TABLES, UNITS_PER_RMS
from rockledge.formats.table import decode, padded_tables

Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SHARES = (1.0, 0.97, 1.03)
"""What is tried for the row scale, as a share of the one that the tables were made for."""
_ERROR_CELLS, _CELLS_A_UNIT = 1024, 4
_NEAREST_CELLS = 512  # halves of a unit, so that the middles between whole numbers are borders
_LANES = 8
_LEAST = np.float32(1e-30)


@dataclass(frozen=True)
class NormalTables:
    """Sixteen tables and what rounding looks up in them: `entries` int8 [16, 16] as artifacts store them;
    `errors` fp32 [1024, 16] of a weight in the middle of each quarter unit from -128 up; `nearest` uint8 [16,
    512], the code for each half unit."""

    bits: int
    entries: Int8
    errors: Float32
    nearest: UInt8

    @property
    def tables(self) -> Int8:
        """The tables alone, int8 [16, 2^bits]."""
        return self.entries[:, : 1 << self.bits]


@lru_cache(maxsize=len(GAUSSIAN_TABLES))
def normal_tables(bits: int) -> NormalTables:
    """The tables that were learned on normal weights, for 2, 3 or 4 bits."""
    tables = np.array(GAUSSIAN_TABLES[bits], np.int8)
    centres = (np.arange(_ERROR_CELLS, dtype=np.float32) + np.float32(0.5)) / _CELLS_A_UNIT - 128
    distances = np.square(tables.astype(np.float32)[None] - centres[:, None, None]).min(axis=2)
    halves = (np.arange(_NEAREST_CELLS, dtype=np.float32) + np.float32(0.5)) / 2 - 128
    middles = (tables[:, 1:].astype(np.float32) + tables[:, :-1]) / 2
    nearest = np.stack([np.searchsorted(row, halves) for row in middles]).astype(np.uint8)
    return NormalTables(bits, padded_tables(tables), np.ascontiguousarray(distances, np.float32), nearest)


def round_rows(weights: Float32, bits: int) -> tuple[UInt8, UInt8, Float32]:
    """Codes uint8 [N, K], index uint8 [N, ceil(K/16)] and scale fp32 [N] of `weights` fp32 [N, K] at 2, 3 or
    4 bits."""
    tables = normal_tables(bits)
    rms = np.sqrt(_sum(np.square(weights)) / np.float32(weights.shape[1]))
    base = np.maximum(rms, _LEAST) / np.float32(UNITS_PER_RMS)
    scale, index, least = (
        base,
        np.zeros((len(weights), groups(weights.shape[1])), np.uint8),
        np.empty(len(base)),
    )
    for number, share in enumerate(SHARES):
        candidate = base * np.float32(share)
        chosen, lost = _choose_tables(weights * (np.float32(1) / candidate)[:, None], tables)
        lost = lost * np.square(candidate.astype(np.float64))
        better = (lost < least) | (number == 0)
        scale, least = np.where(better, candidate, scale), np.where(better, lost, least)
        index = np.where(better[:, None], chosen, index)
    units = weights * (np.float32(1) / scale)[:, None]
    of_weight = np.repeat(index, GROUP, axis=1)[:, : weights.shape[1]]
    codes = tables.nearest[of_weight, _places(units, 2, _NEAREST_CELLS)]
    w8 = decode(index, codes, np.ascontiguousarray(tables.tables)).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = _sum(weights * w8) / _sum(w8 * w8)
    return codes, index, np.where((fitted > 0) & np.isfinite(fitted), fitted, scale)


def round_integers(weights: Float32) -> tuple[Int8, Float32]:
    """w8 int8 [N, K] and scale fp32 [N] of `weights` fp32 [N, K] at 8 bits: each row's largest weight is
    127."""
    scale = np.maximum(np.abs(weights).max(axis=1), _LEAST) / np.float32(127)
    return np.rint(weights / scale[:, None]).astype(np.int8), scale


def _choose_tables(units: Float32, tables: NormalTables) -> tuple[UInt8, Float64]:
    """The table of every group that loses least, uint8 [N, groups], and what a row loses, fp64 [N]."""
    cells = _places(units, _CELLS_A_UNIT, _ERROR_CELLS)
    rows, cols = units.shape
    errors = np.zeros((rows, groups(cols), TABLES), np.float32)
    for place in range(GROUP):
        of_groups = tables.errors[cells[:, place::GROUP]]
        errors[:, : of_groups.shape[1]] += of_groups
    lost = np.add.accumulate(errors.min(axis=2).astype(np.float64), axis=1)[:, -1]
    return errors.argmin(axis=2).astype(np.uint8), lost


def _places(units: Float32, steps: int, count: int) -> npt.NDArray[np.int32]:
    places = units * np.float32(steps) + np.float32(count // 2)
    clipped: npt.NDArray[np.int32] = np.clip(places, np.float32(0), np.float32(count - 1)).astype(np.int32)
    return clipped


def _sum(values: Float32) -> Float32:
    """Sums fp32 [N] of rows [N, K]: eight lanes, then ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))."""
    rows, cols = values.shape
    padded = np.zeros((rows, -(-cols // _LANES), _LANES), np.float32)
    padded.reshape(rows, -1)[:, :cols] = values
    lane = np.add.accumulate(padded, axis=1)[:, -1].T
    total: Float32 = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]))
    return total
