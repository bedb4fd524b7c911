"""The board counts tiles as the formats pack them."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.tiles import STRIP, TILE, stored_bytes
from rockledge.formats import bands


@given(st.sampled_from(bands.WIDTHS), st.integers(1, 300), st.integers(1, 3000))
def test_bytes_of_a_band_are_those_of_its_streams(bits: int, rows: int, cols: int) -> None:
    (span,) = bands.spans([bands.Band(0, rows, bits)], cols)
    assert stored_bytes(bits, rows, cols) == span.codes_bytes + span.index_bytes + 4 * rows
    assert (STRIP, TILE) == (bands.STRIP, bands.TILE)
