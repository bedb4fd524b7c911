"""The uniform counterpart of a mixed recipe: the same bytes, but every matrix treated alike.

The same share of rows of every matrix gets the wider of two neighbouring widths. What the mixed recipe gains
over this one is what choosing by price is worth.
"""

from collections.abc import Mapping
from dataclasses import replace

from rockledge.formats.bands import INDEX_BYTES, STRIP, TILE_BYTES, Band, strips, tiles
from rockledge.quantize.recipe import Recipe, Widths

_PAIRS = ((3, 4), (4, 8))
_STEPS = 1024


def uniform(recipe: Recipe, columns: Mapping[str, int]) -> Recipe:
    """`recipe` with uniform widths of at most the same bytes; `columns` are the inputs of every linear."""
    budget = stream_bytes(recipe.widths, columns)
    rows = {name: sum(band.rows for band in bands) for name, bands in recipe.widths.items()}
    best: Widths = {name: (Band(0, count, _PAIRS[0][0]),) for name, count in rows.items()}
    for low, high in _PAIRS:
        for step in range(_STEPS + 1):
            widths = {name: _bands(count, step / _STEPS, low, high) for name, count in rows.items()}
            if stream_bytes(widths, columns) > budget:
                return replace(recipe, widths=best)
            best = widths
    return replace(recipe, widths=best)


def stream_bytes(widths: Widths, columns: Mapping[str, int]) -> int:
    """Bytes of all codes and indices."""
    return sum(
        strips(band.rows) * tiles(columns[name]) * (TILE_BYTES[band.bits] + INDEX_BYTES * (band.bits < 8))
        for name, bands in widths.items()
        for band in bands
    )


def _bands(rows: int, share: float, low: int, high: int) -> tuple[Band, ...]:
    wide = min(rows, STRIP * round(share * rows / STRIP))
    both = (Band(0, wide, high), Band(wide, rows - wide, low))
    return tuple(band for band in both if band.rows)
