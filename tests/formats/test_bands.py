"""Bands cover rows once, and their streams lie one after another on 64-byte boundaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import UsageError
from rockledge.formats.bands import (
    WIDTHS,
    Band,
    check_bands,
    packed_bytes,
    spans,
    stream_bytes,
    table_widths,
)


@st.composite
def banded(draw):
    bands, start = [], 0
    for rows in draw(st.lists(st.integers(1, 70), min_size=1, max_size=6)):
        bands.append(Band(start, rows, draw(st.sampled_from(WIDTHS))))
        start += rows
    return tuple(bands), start


@given(banded(), st.integers(1, 200))
def test_streams_are_aligned_and_do_not_overlap(given_bands, cols):
    bands, rows = given_bands
    check_bands(bands, rows)
    codes = index = 0
    for band, span in zip(bands, spans(bands, cols), strict=True):
        assert span.codes % 64 == 0
        assert span.index % 64 == 0
        assert span.codes >= codes
        assert span.index >= index
        codes, index = span.codes + span.codes_bytes, span.index + span.index_bytes
        padded = -(-band.rows // 8) * 8 * -(-cols // 32) * 32
        assert span.codes_bytes * 8 == padded * band.bits
        assert span.index_bytes == (padded // 32 if band.bits < 8 else 0)
    assert [total - total % 64 for total in stream_bytes(bands, cols)] == list(stream_bytes(bands, cols))
    assert stream_bytes(bands, cols)[0] >= codes


def test_cost_of_a_large_matrix_is_that_of_the_design():
    # b + 4/g + 32/K bits a weight, plus 256 bytes of tables
    rows, cols = 4096, 4096
    bits = 8 * packed_bytes(rows, cols, (Band(0, rows, 4),)) / (rows * cols)
    assert bits == pytest.approx(4 + 4 / 16 + 32 / cols + 8 * 256 / (rows * cols))


def test_widths_that_need_tables_rise():
    assert table_widths((Band(0, 8, 4), Band(8, 8, 8), Band(16, 8, 2), Band(24, 8, 4))) == (2, 4)


@pytest.mark.parametrize(
    "bands",
    [
        (Band(0, 8, 5),),
        (Band(0, 4, 4),),
        (Band(0, 4, 4), Band(5, 3, 4)),
        (Band(0, 4, 4), Band(3, 5, 4)),
        (Band(0, 8, 4), Band(8, 0, 4)),
        (),
    ],
)
def test_bad_bands_are_refused(bands):
    with pytest.raises(UsageError):
        check_bands(bands, 8)
