"""The tiles that weights are stored in, as `formats.bands` packs them (tests/board/test_tiles.py)."""

STRIP = 8  # rows of a tile
TILE = 32  # inputs of a tile
TILE_WEIGHTS = STRIP * TILE


def padded(width: int) -> int:
    """Elements of a row of `width` in whole tiles."""
    return -(-width // TILE) * TILE


def tile_bytes(bits: int) -> int:
    """Bytes of a tile: codes, and below 8 bits one byte of table indices a row."""
    return TILE_WEIGHTS * bits // 8 + (STRIP if bits < 8 else 0)


def stored_bytes(bits: int, rows: int, cols: int) -> int:
    """Bytes of a band of `rows` x `cols` weights: padded tiles, indices and one fp32 scale a row."""
    return -(-rows // STRIP) * (padded(cols) // TILE) * tile_bytes(bits) + 4 * rows
