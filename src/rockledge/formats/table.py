"""The table code: what a code and a table index mean.

A weight of width b < 8 is `w8 = tables[index of its group][code]`, an int8 in [-127, 127]; at 8 bits the code
is w8 itself. The real weight is `scale of its row * w8`.
"""

import numpy as np
import numpy.typing as npt

from rockledge.formats.bands import GROUP, TABLES

Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


def decode(index: UInt8, codes: UInt8, tables: Int8) -> Int8:
    """w8 int8 [N, K] of `index` uint8 [N, ceil(K/16)], `codes` uint8 [N, K], `tables` int8 [16, entries]."""
    entries = tables.shape[1]
    offset = np.repeat(index.astype(np.uint16) * np.uint16(entries), GROUP, axis=1)[:, : codes.shape[1]]
    return np.ascontiguousarray(tables).reshape(-1)[offset + codes]


def padded_tables(tables: Int8) -> Int8:
    """One width's tables int8 [16, 2^b] as stored: int8 [16, 16], entries past 2^b zero."""
    stored = np.zeros((TABLES, 16), np.int8)
    stored[:, : tables.shape[1]] = tables
    return stored
