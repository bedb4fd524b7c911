"""Uniform recipes: the same bytes as the mixed one, every matrix alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.uniform import stream_bytes, uniform
from rockledge.formats.bands import Band, check_bands
from rockledge.quantization.choosing.recipe import Recipe

SHAPES = {
    "embed": (512, 96),
    "layers.0.attn.q": (64, 96),
    "layers.0.ffn.up": (256, 96),
    "layers.0.ffn.down": (96, 256),
}
COLUMNS = {name: shape[1] for name, shape in SHAPES.items()}


def recipe(bits: list[tuple[int, int]]) -> Recipe:
    """The upper part of every matrix at one width, the rest at another."""
    widths = {}
    for (name, (rows, _)), (first, second) in zip(SHAPES.items(), bits, strict=True):
        cut = rows // 16 * 8
        widths[name] = (Band(0, cut, first), Band(cut, rows - cut, second))
    return Recipe("m", 0, "built-in", "", 1024, 4.0, None, widths, {"layers.0.ffn.down": 2})


choices = st.lists(st.tuples(*[st.sampled_from((3, 4, 8))] * 2), min_size=4, max_size=4)


@given(choices)
def test_same_bytes_same_treatment(bits: list[tuple[int, int]]) -> None:
    mixed = recipe(bits)
    plain = uniform(mixed, COLUMNS)
    budget, used = stream_bytes(mixed.widths, COLUMNS), stream_bytes(plain.widths, COLUMNS)
    assert 0.96 * budget <= used <= budget
    shares = []
    for name, bands in plain.widths.items():
        check_bands(bands, SHAPES[name][0])
        rows = SHAPES[name][0]
        high = [np.full(band.rows, band.bits) for band in bands]
        wide = np.concatenate(high) == max(
            band.bits for all_bands in plain.widths.values() for band in all_bands
        )
        shares.append(wide.mean())
        # Whichever quarter of a matrix is looked at, it has its share.
        for quarter in wide.reshape(4, -1):
            assert abs(quarter.mean() - wide.mean()) <= 2 * 8 / (rows // 4)
    assert max(shares) - min(shares) <= 8 / 64
    assert plain.planes == mixed.planes


def test_the_bytes_of_one_width_are_used_up() -> None:
    """All but the padding between the two bands of the mixed recipe."""
    for bits in (3, 4, 8):
        mixed = recipe([(bits, bits)] * 4)
        used = stream_bytes(uniform(mixed, COLUMNS).widths, COLUMNS)
        assert 0 <= stream_bytes(mixed.widths, COLUMNS) - used <= 2 * 63 * len(SHAPES)


def test_bytes_by_hand() -> None:
    """64 rows x 96 inputs are 8 strips of 3 tiles: 128 + 8 bytes each at 4 bits, 256 at 8; 256 for tables.
    Every band begins at a multiple of 64 bytes: of codes behind 3 tiles at 3 bits, and of indices."""
    assert stream_bytes({"layers.0.attn.q": (Band(0, 64, 4),)}, COLUMNS) == 24 * 136 + 256
    assert stream_bytes({"layers.0.attn.q": (Band(0, 64, 8),)}, COLUMNS) == 24 * 256
    assert (
        stream_bytes({"layers.0.attn.q": (Band(0, 8, 3), Band(8, 56, 4))}, COLUMNS)
        == (320 + 21 * 128) + (64 + 192) + 512
    )
    with pytest.raises(KeyError):
        stream_bytes({"other": (Band(0, 8, 4),)}, COLUMNS)
