"""Tilings drawn at random: any cut that `tiling.py` allows, good or bad, not only those the search finds."""

from itertools import pairwise

from hypothesis import strategies as st

from rockledge.npu.programs.tile_program import BANK_BYTES, BANKS, data_banks, least_weight_banks
from rockledge.npu.programs.tiling import Addition, Cost, Kick, Product, Reuse, Span, Sums, Tiling

NO_COST = Cost(1, 0.0, 0, 0, 0, 0.0)


def cuts(draw, total, unit, most=4):
    """Spans that cover [0, total) in pieces that are multiples of `unit`."""
    units = total // unit
    marks = sorted(draw(st.sets(st.integers(1, max(1, units - 1)), max_size=most - 1)) if units > 1 else [])
    ends = [0, *(unit * mark for mark in marks), total]
    return tuple(Span(a, b - a) for a, b in pairwise(ends))


@st.composite
def tilings(draw, most_rows=48, most_columns=160, most_inputs=200):
    """A tiling of a small matmul with any order of tiles, any split over cores and all that may be reused."""
    m = draw(st.integers(1, most_rows))
    n, k = draw(st.integers(1, most_columns)), draw(st.integers(1, most_inputs))
    rows = 1 if m == 1 else -(-m // 4) * 4
    columns, inputs = -(-n // 32) * 32, -(-k // 32) * 32
    row_tiles = cuts(draw, rows, 1 if rows == 1 else 4)
    parts = cuts(draw, inputs, 32)
    sums = Sums.SINGLE if len(parts) == 1 else draw(st.sampled_from([Sums.HOST, Sums.CHAIN]))
    first = draw(st.integers(1, len(row_tiles)))
    row_blocks = [tiles for tiles in (row_tiles[:first], row_tiles[first:]) if tiles]
    kicks = []
    for tiles in row_blocks:
        block = Span(tiles[0].start, tiles[-1].stop - tiles[0].start)
        for wide in cuts(draw, columns, 32, 2):
            column_tiles = [Span(wide.start + s.start, s.size) for s in cuts(draw, wide.size, 32)]
            kicks.append(Kick(block, wide, cores(draw, tiles, column_tiles, parts, sums)))
    shape = (m, n, k, rows, columns, inputs)
    return Tiling(*shape, row_tiles, parts, sums, tuple(kicks), NO_COST)


def cores(draw, row_tiles, column_tiles, parts, sums):
    """The tasks of three cores: every tile on one of them, in a random order."""
    places = draw(st.permutations([(r, c) for r in row_tiles for c in column_tiles]))
    owners = [draw(st.integers(0, 2)) for _ in places]
    found = []
    for core in range(3):
        mine = [place for place, owner in zip(places, owners, strict=True) if owner == core]
        tasks = []
        for number, part in enumerate(parts):
            for rows, columns in mine:
                tasks.append(product(draw, tasks, rows, columns, part, number))
            if number and sums is Sums.CHAIN:
                tasks += [Addition(rows, columns, number) for rows, columns in mine]
        found.append(tuple(tasks))
    return tuple(found)


def product(draw, tasks, rows, columns, part, number):
    """A product whose banks are anything allowed, reusing what the one before it left when it may."""
    least = data_banks(rows.size, part.size), least_weight_banks(part.size)
    data = draw(st.integers(least[0], BANKS - least[1]))
    weight = draw(st.integers(least[1], BANKS - data))
    before = tasks[-1] if tasks and isinstance(tasks[-1], Product) else None
    if before is None or before.inputs != part or before.data_banks < least[0]:
        return Product(rows, columns, part, number, data, weight, Reuse.NONE)
    allowed = [Reuse.NONE]
    if before.rows == rows:
        allowed.append(Reuse.DATA)
    if before.columns == columns and columns.size * part.size <= before.weight_banks * BANK_BYTES:
        allowed.append(Reuse.WEIGHT)
    reuse = draw(st.sampled_from(allowed))
    if reuse is not Reuse.NONE:
        data, weight = before.data_banks, before.weight_banks
    return Product(rows, columns, part, number, data, weight, reuse)
