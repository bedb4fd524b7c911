"""The uniform counterpart of a mixed recipe: the same bytes, but every matrix treated alike.

The same share of rows of every matrix gets the wider of two neighbouring widths, in runs spread evenly over
it: rows lie in the order of their price (frequent tokens first, dear feed-forward channels first), and taking
the first ones would be choosing. What the mixed recipe gains over this one is what choosing by price is
worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from bench.models import UnavailableError
from rockledge.formats.bands import STRIP, TABLES, Band, strips
from rockledge.formats.bands import stream_bytes as streams
from rockledge.quantization.choosing.recipe import Recipe, Widths

_PAIRS = ((3, 4), (4, 8))
_STEPS = 512
_RUNS = 64  # of either width at most: finer would change nothing
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
    return sum(streams(bands, columns)) + _TABLE_BYTES * len({band.bits for band in bands} - {8})


def _bands(rows: int, share: float, low: int, high: int) -> tuple[Band, ...]:
    """Runs of strips at `high`, `share` of all, and of `low` between them."""
    count = strips(rows)
    runs = min(_RUNS, count)
    starts = [STRIP * (count * run // runs) for run in range(runs)] + [rows]
    wide = [_strips_of(share, start) for start in starts]
    bands = []
    for (start, end), (before, after) in zip(pairwise(starts), pairwise(wide), strict=True):
        middle = min(end, start + STRIP * (after - before))
        bands += [(start, middle, high), (middle, end, low)]
    return _merged(bands)


def _strips_of(share: float, rows: int) -> int:
    """How many of the first `rows` rows' strips are wide."""
    return round(share * strips(rows))


def _merged(spans: Sequence[tuple[int, int, int]]) -> tuple[Band, ...]:
    """Bands of (start, end, bits), empty ones left out and neighbours of one width joined."""
    filled = [span for span in spans if span[0] < span[1]]
    joined = [list(group) for _, group in groupby(filled, key=lambda span: span[2])]
    return tuple(Band(group[0][0], group[-1][1] - group[0][0], group[0][2]) for group in joined)
