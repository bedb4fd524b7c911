"""The uniform counterpart of a mixed recipe: the same bytes, but every matrix treated alike.

The same share of rows of every matrix gets the wider of two neighbouring widths. What the mixed recipe gains
over this one is what choosing by price is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.models import UnavailableError
from rockledge.formats.bands import INDEX_BYTES, STRIP, TABLES, TILE_BYTES, Band, strips, tiles
from rockledge.quantize.recipe import Recipe, Widths

_PAIRS = ((3, 4), (4, 8))
_STEPS = 512
_TABLE_BYTES = TABLES * 16  # of one width: sixteen tables of up to sixteen int8


def uniform(recipe: Recipe, columns: Mapping[str, int]) -> Recipe:
    """`recipe` with uniform widths of at most the same bytes; `columns` are the inputs of every linear."""
    budget = stream_bytes(recipe.widths, columns)
    rows = {name: sum(band.rows for band in bands) for name, bands in recipe.widths.items()}
    found = (
        {name: _bands(count, step / _STEPS, low, high) for name, count in rows.items()}
        for low, high in _PAIRS
        for step in range(_STEPS + 1)
    )
    fitting = [widths for widths in found if stream_bytes(widths, columns) <= budget]
    if not fitting:
        raise UnavailableError(f"no uniform widths are as small as {budget} bytes")
    return replace(recipe, widths=max(fitting, key=lambda widths: stream_bytes(widths, columns)))


def stream_bytes(widths: Widths, columns: Mapping[str, int]) -> int:
    """Bytes of all codes, indices and tables."""
    return sum(_linear_bytes(bands, columns[name]) for name, bands in widths.items())


def _linear_bytes(bands: Sequence[Band], columns: int) -> int:
    tiled = sum(
        strips(band.rows) * tiles(columns) * (TILE_BYTES[band.bits] + INDEX_BYTES * (band.bits < 8))
        for band in bands
    )
    return tiled + _TABLE_BYTES * len({band.bits for band in bands} - {8})


def _bands(rows: int, share: float, low: int, high: int) -> tuple[Band, ...]:
    wide = min(rows, STRIP * round(share * rows / STRIP))
    both = (Band(0, wide, high), Band(wide, rows - wide, low))
    return tuple(band for band in both if band.rows)
