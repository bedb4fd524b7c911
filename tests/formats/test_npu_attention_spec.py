"""The NPU's way through attention gives the bits of attention's specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.formats import attention_spec
from rockledge.formats.npu_attention_spec import Int8, Int32, attend, planes_of, split_rows


def exact(a: Int8, b: Int8) -> Int32:
    return np.asarray(a.astype(np.int64) @ b.astype(np.int64).T, np.int32)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 1300), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 48, 700]))
def test_queries_have_the_bits_of_the_specification(past: int, seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.choice([1, 32, 50]))
    positions = np.arange(max(0, past - 5), past)
    queries = rng.integers(-127, 128, (len(positions), size)).astype(np.int8)
    keys, values = rng.integers(-127, 128, (2, past, size)).astype(np.int8)
    key_scales, value_scales = rng.lognormal(0, 0.5, (2, past)).astype(np.float32)
    query_scales = rng.lognormal(0, 0.5, len(positions)).astype(np.float32)
    scale = 1 / (127**2 * size**0.5)
    found = attend(
        queries, query_scales, positions, keys, key_scales, values, value_scales,
        scale=scale, window=window, product=exact,
    )  # fmt: skip
    for q, position in enumerate(positions):
        seen = slice(0, position + 1)
        expected = attention_spec.attend(
            queries[q], query_scales[q], keys[seen], key_scales[seen], values[seen], value_scales[seen],
            scale=scale, first=max(0, position + 1 - window) if window else 0,
        )  # fmt: skip
        assert found[q].tobytes() == expected.tobytes()


def test_planes_are_neighbours_and_give_their_codes_back() -> None:
    codes = np.array([[0, 1, 127, 128, 16383], [5, 16382, 0, 0, 129]], np.int64)
    planes = planes_of(codes)
    assert planes.dtype == np.int8
    assert planes.min() >= 0
    assert (planes[0::2].astype(np.int64) * 128 + planes[1::2] == codes).all()


@pytest.mark.parametrize(("first", "split", "rows"), [(0, 0, 512), (600, 1, 424), (0, 2, 6), (1029, 2, 1)])
def test_rows_of_a_split_that_nobody_sees_are_zeros(first: int, split: int, rows: int) -> None:
    entries = np.ones((1030, 2), np.int8)
    laid = split_rows(entries, first, split)
    assert laid.shape == (512, 2)
    assert laid.sum() == 2 * rows
