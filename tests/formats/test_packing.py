"""Packing: the bytes are where docs/formats.md says, and unpacking gives every weight back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.formats.bands import WIDTHS, Band
from rockledge.formats.packing import dequantize, pack, unpack
from rockledge.formats.table import decode


def random_linear(random, heights, widths, cols):
    """Codes, index, tables, bands of a linear whose bands have the given heights and widths."""
    rows = sum(heights)
    codes = np.zeros((rows, cols), np.uint8)
    bands, start = [], 0
    for height, bits in zip(heights, widths, strict=True):
        part = random.integers(1 if bits == 8 else 0, 1 << bits, (height, cols)).astype(np.uint8)
        codes[start : start + height] = part ^ 0x80 if bits == 8 else part
        bands.append(Band(start, height, bits))
        start += height
    index = random.integers(0, 16, (rows, -(-cols // 16))).astype(np.uint8)
    tables = {
        bits: random.integers(-127, 128, (16, 1 << bits)).astype(np.int8) for bits in widths if bits < 8
    }
    return codes, index, tables, tuple(bands)


shapes = st.lists(st.tuples(st.integers(1, 20), st.sampled_from(WIDTHS)), min_size=1, max_size=4)


@given(st.integers(0, 2**32 - 1), shapes, st.integers(1, 100))
def test_every_weight_comes_back(seed, shape, cols):
    random = np.random.default_rng(seed)
    heights, widths = zip(*shape, strict=True)
    codes, index, tables, bands = random_linear(random, heights, widths, cols)
    scale = random.uniform(0.1, 1, len(codes)).astype(np.float32)
    packed = pack(codes, index, tables, scale, bands)
    w8 = unpack(packed)
    for band in bands:
        part = slice(band.start, band.start + band.rows)
        expected = (
            codes[part].view(np.int8)
            if band.bits == 8
            else decode(index[part], codes[part], tables[band.bits])
        )
        assert (w8[part] == expected).all()
    assert (dequantize(packed) == scale[:, None] * w8).all()


def code_at(stream, bits, tiles, row, k):
    """The code of one weight, read from its documented place."""
    strip, r, tile, inside = row // 8, row % 8, k // 32, k % 32
    at = (strip * tiles + tile) * 32 * bits
    if bits == 4:
        return int(stream[at + r // 2 * 32 + inside]) >> (4 * (r % 2)) & 15
    if bits == 8:
        return int(stream[at + r * 32 + inside])
    low = int(stream[at + r // 4 * 32 + inside]) >> (2 * (r % 4)) & 3
    return low if bits == 2 else low | (int(stream[at + 64 + inside]) >> r & 1) << 2


@given(st.integers(0, 2**32 - 1), st.sampled_from(WIDTHS), st.integers(1, 20), st.integers(1, 80))
@settings(max_examples=60)
def test_each_code_and_index_is_at_its_documented_place(seed, bits, rows, cols):
    random = np.random.default_rng(seed)
    codes, index, tables, bands = random_linear(random, (8, rows), (4, bits), cols)
    packed = pack(codes, index, tables, np.ones(8 + rows, np.float32), bands)
    tiles = -(-cols // 32)
    span = packed.spans()[1]
    stream = packed.codes[span.codes :]
    for row in range(rows):
        assert [code_at(stream, bits, tiles, row, k) for k in range(cols)] == codes[8 + row].tolist()
    if bits < 8:
        for row in range(rows):
            for group in range(index.shape[1]):
                byte = packed.index[span.index + (row // 8 * tiles + group // 2) * 8 + row % 8]
                assert byte >> (4 * (group % 2)) & 15 == index[8 + row, group]


def test_padding_is_zero():
    codes, index = np.full((3, 5), 15, np.uint8), np.full((3, 1), 15, np.uint8)
    packed = pack(codes, index, {4: np.ones((16, 16), np.int8)}, np.ones(3, np.float32), (Band(0, 3, 4),))
    assert np.bincount(packed.codes, minlength=256)[[0, 15, 255]].tolist() == [118, 5, 5]
    assert np.flatnonzero(packed.index).tolist() == [0, 1, 2]


def test_tables_are_stored_by_rising_width():
    random = np.random.default_rng(1)
    codes, index, tables, bands = random_linear(random, (4, 4, 4), (4, 8, 2), 16)
    packed = pack(codes, index, tables, np.ones(12, np.float32), bands)
    assert packed.tables.shape == (2, 16, 16)
    assert (packed.tables[0][:, :4] == tables[2]).all()
    assert (packed.tables[0][:, 4:] == 0).all()
    assert (packed.tables_of(4) == tables[4]).all()


def test_eight_bits_need_neither_index_nor_tables():
    codes = np.arange(1, 65, dtype=np.uint8).reshape(4, 16)
    packed = pack(codes, np.zeros((4, 1), np.uint8), {}, np.ones(4, np.float32), (Band(0, 4, 8),))
    assert packed.index.size == 0
    assert packed.tables.shape == (0, 16, 16)
    assert (unpack(packed) == codes.view(np.int8)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"codes": np.full((8, 32), 16, np.uint8)},
        {"index": np.full((8, 2), 16, np.uint8)},
        {"index": np.zeros((8, 3), np.uint8)},
        {"tables": {}},
        {"tables": {4: np.zeros((16, 8), np.int8)}},
        {"tables": {4: np.full((16, 16), -128, np.int8)}},
        {"scale": np.ones(7, np.float32)},
        {"bias": np.ones(9, np.float32)},
        {"bands": (Band(0, 7, 4),)},
        {"codes": np.full((8, 32), 0x80, np.uint8), "bands": (Band(0, 8, 8),)},
    ],
)
def test_what_cannot_be_packed_is_refused(change):
    given_linear = {
        "codes": np.zeros((8, 32), np.uint8),
        "index": np.zeros((8, 2), np.uint8),
        "tables": {4: np.zeros((16, 16), np.int8)},
        "scale": np.ones(8, np.float32),
        "bands": (Band(0, 8, 4),),
    }
    pack(**given_linear)
    with pytest.raises(UsageError):
        pack(**{**given_linear, **change})
