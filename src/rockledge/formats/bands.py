"""Bands: runs of rows of a linear that share one code width, and where they lie in the packed streams."""

from collections.abc import Sequence
from dataclasses import dataclass

from rockledge.errors import UsageError

GROUP = 16  # inputs that share one table index
TABLES = 16  # tables per linear and width: an index is four bits
STRIP = 8  # rows of a tile
TILE = 32  # inputs of a tile: two groups
ALIGN = 64  # bytes: a cache line, and the widest vector load of any kernel
WIDTHS = (2, 3, 4, 8)
TILE_BYTES = {bits: STRIP * TILE * bits // 8 for bits in WIDTHS}
INDEX_BYTES = STRIP  # bytes of a tile's indices: two nibbles a row


@dataclass(frozen=True)
class Band:
    """Rows `start .. start + rows - 1` of a linear, stored with `bits` per weight (2, 3, 4 or 8)."""

    start: int
    rows: int
    bits: int


@dataclass(frozen=True)
class Span:
    """Byte range of one band in the `codes` and the `index` stream of its linear (`index_bytes` 0 at 8)."""

    codes: int
    codes_bytes: int
    index: int
    index_bytes: int


def aligned(size: int) -> int:
    """`size` bytes rounded up to the alignment of every stream and tensor."""
    return -(-size // ALIGN) * ALIGN


def strips(rows: int) -> int:
    """Strips that hold `rows` rows."""
    return -(-rows // STRIP)


def tiles(cols: int) -> int:
    """Tiles in a strip of `cols` inputs."""
    return -(-cols // TILE)


def padded(cols: int) -> int:
    """Inputs in whole tiles."""
    return tiles(cols) * TILE


def groups(cols: int) -> int:
    """Groups of a row of `cols` inputs; the last may be short."""
    return -(-cols // GROUP)


def check_bands(bands: Sequence[Band], rows: int) -> None:
    """Raises UsageError unless the bands cover rows 0 .. rows-1 once, in order, with known widths."""
    position = 0
    for band in bands:
        if band.bits not in WIDTHS:
            raise UsageError(f"a band has {band.bits} bits a weight, expected one of {WIDTHS}")
        if band.start != position or band.rows < 1:
            raise UsageError(
                f"a band of {band.rows} rows starts at row {band.start}, expected row {position}; "
                "give bands in order, without gaps or overlaps"
            )
        position += band.rows
    if position != rows:
        raise UsageError(f"the bands cover {position} rows of a matrix of {rows}; cover every row once")


def table_widths(bands: Sequence[Band]) -> tuple[int, ...]:
    """The distinct widths that need tables (below 8 bits), rising: the order of a linear's `tables`."""
    return tuple(sorted({band.bits for band in bands if band.bits < 8}))


def spans(bands: Sequence[Band], cols: int) -> tuple[Span, ...]:
    """Where each band lies in the two streams; every band starts on a multiple of 64 bytes."""
    placed = []
    codes = index = 0
    for band in bands:
        count = strips(band.rows) * tiles(cols)
        span = Span(codes, count * TILE_BYTES[band.bits], index, count * INDEX_BYTES if band.bits < 8 else 0)
        placed.append(span)
        codes += aligned(span.codes_bytes)
        index += aligned(span.index_bytes)
    return tuple(placed)


def stream_bytes(bands: Sequence[Band], cols: int) -> tuple[int, int]:
    """Bytes of the `codes` and of the `index` stream, both multiples of 64."""
    placed = spans(bands, cols)
    return sum(aligned(s.codes_bytes) for s in placed), sum(aligned(s.index_bytes) for s in placed)


def packed_bytes(rows: int, cols: int, bands: Sequence[Band], *, bias: bool = False) -> int:
    """Bytes a linear takes in an artifact: codes, index, tables, row scales and bias, each padded to 64."""
    check_bands(bands, rows)
    codes, index = stream_bytes(bands, cols)
    tables = len(table_widths(bands)) * TABLES * 16
    vectors = aligned(4 * rows) * (2 if bias else 1)
    return codes + index + tables + vectors
