"""Nearest rounding in NumPy, which the PyTorch roundings of `quantization/` are compared with."""

import numpy as np

from rockledge.formats.bands import GROUP, groups
from rockledge.formats.table import Float32, Int8, UInt8

# Entries are integers, so the border between two neighbours is a multiple of 1/2: the cell floor(2 u) of a
# weight u decides its nearest entry exactly, and one lookup replaces a search.
_CELLS = 512
_CHUNK = 1 << 20  # weights encoded at a time


def nearest_codes(tables: Int8) -> UInt8:
    """The code of the nearest entry, for every half-integer cell: uint8 [tables, 512].

    `tables` is int8 [tables, 2^b] in any order of entries; cell i holds the weights with floor(2u) = i - 256.
    On a border the larger entry is taken; of equal entries, the one with the lowest code.
    """
    centres = (np.arange(_CELLS, dtype=np.float32) - 256.0) / 2.0 + 0.25
    distance = np.abs(tables.astype(np.float32)[:, None, :] - centres[None, :, None])
    nearest: UInt8 = distance.argmin(axis=2).astype(np.uint8)
    return nearest


def encode(weights: Float32, scale: Float32, tables: Int8) -> tuple[UInt8, UInt8]:
    """Nearest codes of fp32 `weights` [N, K] under fp32 row scales [N] and int8 `tables` [16, 2^b].

    Returns (index uint8 [N, ceil(K/16)], codes uint8 [N, K]): in every group the table with the least squared
    error, the lowest numbered of equals. A row with scale 0 is encoded as zeros' nearest codes.
    """
    rows, cols = weights.shape
    per_row = groups(cols)
    lookup = nearest_codes(tables)
    index = np.zeros((rows, per_row), np.uint8)
    codes = np.zeros((rows, cols), np.uint8)
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0).astype(np.float32)
    step = max(1, _CHUNK // max(cols, 1))
    for first in range(0, rows, step):
        part = slice(first, min(first + step, rows))
        u = weights[part] * inverse[part, None]
        cell = (np.clip(np.floor(2.0 * u), -256, 255) + 256).astype(np.int16)
        best = np.full((u.shape[0], per_row), np.inf, np.float32)
        for number in range(len(tables)):
            candidate = lookup[number][cell]
            gap = np.zeros((u.shape[0], per_row * GROUP), np.float32)
            gap[:, :cols] = u - tables[number].astype(np.float32)[candidate]
            error = np.square(gap).reshape(u.shape[0], per_row, GROUP).sum(axis=2)
            better = error < best
            best = np.where(better, error, best)
            index[part][better] = number
            chosen = np.repeat(better, GROUP, axis=1)[:, :cols]
            codes[part] = np.where(chosen, candidate, codes[part])
    return index, codes
