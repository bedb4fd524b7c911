"""Packing: codes and indices as the byte streams that kernels read, and back.

Rows are cut into strips of 8, a strip into tiles of 8 rows x 32 inputs; docs/formats.md draws the bytes.
The streams are the same on every processor: the file is the memory layout.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rockledge.errors import UsageError
from rockledge.formats.bands import (
    INDEX_BYTES,
    STRIP,
    TABLES,
    TILE,
    TILE_BYTES,
    Band,
    Span,
    check_bands,
    groups,
    spans,
    stream_bytes,
    strips,
    table_widths,
    tiles,
)
from rockledge.formats.table import Float32, Int8, UInt8, decode, padded_tables

_CHUNK = 1 << 22  # weights packed at a time: bounds the temporaries of a large matrix
_2, _4, _6 = np.uint8(2), np.uint8(4), np.uint8(6)  # shifts that keep an array's type


@dataclass(frozen=True)
class PackedLinear:
    """One linear as it is stored and mapped; arrays may be read-only views of a file.

    `codes` and `index` are uint8 streams (bands.spans gives the place of each band), `tables` int8
    [len(table_widths(bands)), 16, 16], `scale` and `bias` fp32 [rows].
    """

    rows: int
    cols: int
    bands: tuple[Band, ...]
    codes: UInt8
    index: UInt8
    tables: Int8
    scale: Float32
    bias: Float32 | None = None

    def spans(self) -> tuple[Span, ...]:
        """Byte ranges of the bands in `codes` and `index`."""
        return spans(self.bands, self.cols)

    def tables_of(self, bits: int) -> Int8:
        """Tables int8 [16, 16] of a width below 8 bits that this linear uses."""
        tables: Int8 = self.tables[table_widths(self.bands).index(bits)]
        return tables


def _pairs(codes: UInt8) -> UInt8:
    # [S, 8, T, 32] -> [S, T, 128]: byte c*32 + input holds rows 2c (low nibble) and 2c + 1.
    count, _, across, _ = codes.shape
    packed = codes[:, 0::2] | (codes[:, 1::2] << _4)
    return packed.transpose(0, 2, 1, 3).reshape(count, across, 4 * TILE)


def _unpairs(stream: UInt8) -> UInt8:
    count, across, _ = stream.shape
    quads = stream.reshape(count, across, 4, TILE).transpose(0, 2, 1, 3)
    codes = np.empty((count, STRIP, across, TILE), np.uint8)
    codes[:, 0::2] = quads & 15
    codes[:, 1::2] = quads >> 4
    return codes


def _fours(codes: UInt8) -> UInt8:
    # [S, 8, T, 32] -> [S, T, 64]: byte c*32 + input holds rows 4c .. 4c + 3, two bits each.
    count, _, across, _ = codes.shape
    packed = codes[:, 0::4] | (codes[:, 1::4] << _2) | (codes[:, 2::4] << _4) | (codes[:, 3::4] << _6)
    stream: UInt8 = packed.transpose(0, 2, 1, 3).reshape(count, across, 2 * TILE)
    return stream


def _unfours(stream: UInt8) -> UInt8:
    count, across, _ = stream.shape
    halves = stream.reshape(count, across, 2, TILE).transpose(0, 2, 1, 3)
    codes = np.empty((count, STRIP, across, TILE), np.uint8)
    for row in range(4):
        codes[:, row::4] = (halves >> (2 * row)) & 3
    return codes


def _low_and_high(codes: UInt8) -> UInt8:
    # 64 bytes of the low two bits as at two bits, then 32 bytes whose bit r is the third bit of row r.
    high = np.zeros((codes.shape[0], codes.shape[2], TILE), np.uint8)
    for row in range(STRIP):
        high |= (codes[:, row] >> 2) << row
    return np.concatenate([_fours(codes & np.uint8(3)), high], axis=2)


def _unlow_and_high(stream: UInt8) -> UInt8:
    codes = _unfours(stream[:, :, : 2 * TILE])
    high = stream[:, :, 2 * TILE :]
    for row in range(STRIP):
        codes[:, row] |= ((high >> row) & 1) << 2
    return codes


def _rows(codes: UInt8) -> UInt8:
    count, _, across, _ = codes.shape
    return codes.transpose(0, 2, 1, 3).reshape(count, across, STRIP * TILE)


def _unrows(stream: UInt8) -> UInt8:
    count, across, _ = stream.shape
    return stream.reshape(count, across, STRIP, TILE).transpose(0, 2, 1, 3)


_PACK: dict[int, Callable[[UInt8], UInt8]] = {2: _fours, 3: _low_and_high, 4: _pairs, 8: _rows}
_UNPACK: dict[int, Callable[[UInt8], UInt8]] = {2: _unfours, 3: _unlow_and_high, 4: _unpairs, 8: _unrows}


def _strip_chunks(rows: int, cols: int) -> list[tuple[int, int]]:
    step = max(1, _CHUNK // (STRIP * TILE * max(1, tiles(cols))))
    count = strips(rows)
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def pack_codes(codes: UInt8, bits: int) -> UInt8:
    """Codes uint8 [rows, cols] of one band (at 8 bits: w8 viewed as uint8) as its byte stream."""
    rows, cols = codes.shape
    across = tiles(cols)
    out = np.empty((strips(rows), across, TILE_BYTES[bits]), np.uint8)
    for first, last in _strip_chunks(rows, cols):
        part = codes[first * STRIP : last * STRIP]
        if part.shape != ((last - first) * STRIP, across * TILE):
            padded = np.zeros(((last - first) * STRIP, across * TILE), np.uint8)
            padded[: part.shape[0], :cols] = part
            part = padded
        out[first:last] = _PACK[bits](part.reshape(last - first, STRIP, across, TILE))
    return out.reshape(-1)


def unpack_codes(stream: UInt8, rows: int, cols: int, bits: int) -> UInt8:
    """Inverse of pack_codes: uint8 [rows, cols]."""
    across = tiles(cols)
    packed = stream.reshape(strips(rows), across, TILE_BYTES[bits])
    out = np.empty((rows, cols), np.uint8)
    for first, last in _strip_chunks(rows, cols):
        part = _UNPACK[bits](packed[first:last]).reshape((last - first) * STRIP, across * TILE)
        out[first * STRIP : last * STRIP] = part[: rows - first * STRIP, :cols]
    return out


def pack_index(index: UInt8, cols: int) -> UInt8:
    """Table indices uint8 [rows, ceil(cols/16)] of one band as its byte stream: 8 bytes a tile."""
    rows = index.shape[0]
    padded = np.zeros((strips(rows) * STRIP, tiles(cols) * 2), np.uint8)
    padded[:rows, : index.shape[1]] = index
    nibbles = padded[:, 0::2] | (padded[:, 1::2] << _4)
    return nibbles.reshape(strips(rows), STRIP, tiles(cols)).transpose(0, 2, 1).reshape(-1)


def unpack_index(stream: UInt8, rows: int, cols: int) -> UInt8:
    """Inverse of pack_index: uint8 [rows, ceil(cols/16)]."""
    by_strip = stream.reshape(strips(rows), tiles(cols), INDEX_BYTES)
    nibbles = by_strip.transpose(0, 2, 1).reshape(strips(rows) * STRIP, tiles(cols))
    index = np.empty((strips(rows) * STRIP, tiles(cols) * 2), np.uint8)
    index[:, 0::2] = nibbles & 15
    index[:, 1::2] = nibbles >> 4
    return np.ascontiguousarray(index[:rows, : groups(cols)])


def pack(
    codes: UInt8,
    index: UInt8,
    tables: Mapping[int, Int8],
    scale: Float32,
    bands: Sequence[Band],
    bias: Float32 | None = None,
) -> PackedLinear:
    """Packs a linear of N rows and K inputs.

    `codes` uint8 [N, K] (rows of 8-bit bands hold w8 viewed as uint8), `index` uint8 [N, ceil(K/16)] (not
    read in 8-bit bands), `tables` {bits: int8 [16, 2^bits]} for every width below 8 in use, `scale` and
    `bias` fp32 [N].
    Raises UsageError for shapes, codes, indices or table entries out of range.
    """
    rows, cols = codes.shape
    check_bands(bands, rows)
    if index.shape != (rows, groups(cols)) or scale.shape != (rows,):
        raise UsageError(
            f"codes of shape {codes.shape} with an index of {index.shape} and scales of {scale.shape}, "
            f"expected {(rows, groups(cols))} and {(rows,)}"
        )
    if bias is not None and bias.shape != (rows,):
        raise UsageError(f"a linear of {rows} rows with biases of {bias.shape}, expected {(rows,)}")
    for bits in table_widths(bands):
        found, expected = tables[bits].shape if bits in tables else None, (TABLES, 1 << bits)
        if found != expected:
            raise UsageError(f"the tables for {bits} bits have shape {found}, expected {expected}")
        if tables[bits].min() < -127:
            raise UsageError(f"a table for {bits} bits holds -128, expected entries in -127 .. 127")
    codes_bytes, index_bytes = stream_bytes(bands, cols)
    code_stream = np.zeros(codes_bytes, np.uint8)
    index_stream = np.zeros(index_bytes, np.uint8)
    for band, span in zip(bands, spans(bands, cols), strict=True):
        part = slice(band.start, band.start + band.rows)
        if band.bits < 8:
            if codes[part].max(initial=0) >> band.bits or index[part].max(initial=0) >= TABLES:
                raise UsageError(f"a code or index of a {band.bits}-bit band is out of range")
            index_stream[span.index : span.index + span.index_bytes] = pack_index(index[part], cols)
        elif (codes[part] == 0x80).any():
            raise UsageError("an 8-bit weight is -128, expected weights in -127 .. 127")
        code_stream[span.codes : span.codes + span.codes_bytes] = pack_codes(codes[part], band.bits)
    stored = [padded_tables(tables[bits]) for bits in table_widths(bands)]
    return PackedLinear(
        rows=rows,
        cols=cols,
        bands=tuple(bands),
        codes=code_stream,
        index=index_stream,
        tables=np.stack(stored) if stored else np.zeros((0, TABLES, 16), np.int8),
        scale=np.ascontiguousarray(scale, np.float32),
        bias=None if bias is None else np.ascontiguousarray(bias, np.float32),
    )


def unpack(packed: PackedLinear) -> Int8:
    """The decoded weights w8, int8 [rows, cols]."""
    w8 = np.empty((packed.rows, packed.cols), np.int8)
    for band, span in zip(packed.bands, packed.spans(), strict=True):
        stream = packed.codes[span.codes : span.codes + span.codes_bytes]
        codes = unpack_codes(stream, band.rows, packed.cols, band.bits)
        part = w8[band.start : band.start + band.rows]
        if band.bits == 8:
            part[:] = codes.view(np.int8)
            continue
        index_stream = packed.index[span.index : span.index + span.index_bytes]
        index = unpack_index(index_stream, band.rows, packed.cols)
        tables = packed.tables_of(band.bits)
        step = max(1, _CHUNK // max(1, packed.cols))
        for first in range(0, band.rows, step):
            chunk = slice(first, first + step)
            part[chunk] = decode(index[chunk], codes[chunk], tables)
    return w8


def dequantize(packed: PackedLinear) -> Float32:
    """The real weights, fp32 [rows, cols]: row scale times w8."""
    values: Float32 = unpack(packed).astype(np.float32)
    values *= packed.scale[:, None]
    return values
