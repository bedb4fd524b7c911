"""The table code: decoding looks values up, encoding finds the best table and the nearest entries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.formats.nearest_numpy import encode

from rockledge.formats.table import decode


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4]), st.integers(1, 5), st.integers(1, 40))
def test_encoding_is_as_good_as_trying_everything(seed, bits, rows, cols):
    random = np.random.default_rng(seed)
    tables = random.integers(-127, 128, (16, 1 << bits)).astype(np.int8)
    scale = random.uniform(0.5, 2, rows).astype(np.float32)
    weights = (random.standard_normal((rows, cols)) * 60).astype(np.float32)
    index, codes = encode(weights, scale, tables)
    w8 = decode(index, codes, tables)
    for row in range(rows):
        for group in range(index.shape[1]):
            part = slice(16 * group, 16 * group + 16)
            u = weights[row, part] / scale[row]
            losses = [
                np.abs(u[:, None] - table.astype(float)).min(1)
                @ np.abs(u[:, None] - table.astype(float)).min(1)
                for table in tables
            ]
            got = np.square(u - w8[row, part].astype(float)).sum()
            assert got <= min(losses) * (1 + 1e-5) + 1e-5


def test_decoding_looks_up_the_groups_table():
    tables = np.zeros((16, 4), np.int8)
    tables[3] = (-9, -1, 5, 70)
    tables[12] = (1, 2, 3, 4)
    index = np.array([[3, 12]], np.uint8)
    codes = np.array([[0, 1, 2, 3] * 5], np.uint8)
    assert decode(index, codes, tables).tolist() == [[-9, -1, 5, 70] * 4 + [1, 2, 3, 4]]


def test_values_beyond_the_tables_take_the_last_entry():
    tables = np.tile(np.array([-100, 0, 50, 100], np.int8), (16, 1))
    index, codes = encode(np.array([[1e9, -1e9, 3e4, -300.0]], np.float32), np.ones(1, np.float32), tables)
    assert decode(index, codes, tables).tolist() == [[100, -100, 100, -100]]


def test_a_row_of_scale_zero_is_encoded_without_complaint():
    tables = np.tile(np.array([-2, 0, 1, 3], np.int8), (16, 1))
    index, codes = encode(np.zeros((1, 16), np.float32), np.zeros(1, np.float32), tables)
    assert (decode(index, codes, tables) == 0).all()
