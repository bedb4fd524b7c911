"""Attention's specification against float64: powers of two, codes of weights, and whole queries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rockledge.formats import attention_spec
from rockledge.formats.attention_spec import MOST_CODE, POWER_ERROR, attend, powers_of_two, weight_codes


def test_powers_of_two_stay_within_their_error() -> None:
    x = np.linspace(-126, 0, 1_000_003).astype(np.float32)
    error = powers_of_two(x).astype(np.float64) / np.exp2(x.astype(np.float64)) - 1
    assert np.abs(error).max() < POWER_ERROR
    assert powers_of_two(np.array([0.0, -1.0, -126.0], np.float32)).tolist() == [1.0, 0.5, 2.0**-126]


def test_what_is_masked_or_far_below_has_no_weight() -> None:
    low = np.array([-127.0, -130.0, -3e38, -np.inf], np.float32)
    assert powers_of_two(low).tolist() == [0.0, 0.0, 0.0, 0.0]
    between = powers_of_two(np.linspace(-127, -126, 1001).astype(np.float32))
    assert between.min() >= 0
    assert between.max() <= 2.0**-126


@given(st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=40))
def test_codes_are_within_half_of_one(weights: list[float]) -> None:
    exact = np.array(weights, np.float32)
    codes, unit = weight_codes(exact)
    assert codes.min() >= 0
    assert codes.max() <= MOST_CODE
    # Two roundings of fp32 may move what lies near a border.
    assert np.abs(codes * np.float64(unit) - exact).max() <= 0.5003 * exact.max() / MOST_CODE + 1e-30


def test_sums_of_a_split_stay_within_int32() -> None:
    assert attention_spec.SPLIT * MOST_CODE * 127 < 2**31


@given(st.integers(1, 1300), st.integers(0, 2**32 - 1), st.floats(0.01, 4.0))
def test_a_query_stays_within_the_stated_error(positions: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 33))
    first = int(rng.integers(positions)) if rng.random() < 0.5 else 0
    query = rng.integers(-127, 128, size).astype(np.int8)
    keys, values = rng.integers(-127, 128, (2, positions, size)).astype(np.int8)
    key_scales, value_scales = rng.lognormal(0, 0.5, (2, positions)).astype(np.float32)
    scale = spread / (127**2 * size**0.5)
    found = attend(query, np.float32(1), keys, key_scales, values, value_scales, scale=scale, first=first)
    scores = (keys @ query.astype(np.float64)) * key_scales.astype(np.float64) * np.float32(scale)
    weights = np.exp(scores[first:] - scores[first:].max())
    shares = weights / weights.sum() * value_scales[first:]
    seen = values[first:].astype(np.float64)
    rounding = shares.max() / (2 * MOST_CODE) * np.abs(seen).sum(axis=0)
    powers = (2 + positions / 512) * POWER_ERROR * (shares @ np.abs(seen))
    # fp32: a score of size s is off by s / 2^24 or so, and its power as much.
    floats = (np.abs(scores).max() + 8) * 2.0**-22 * (shares @ np.abs(seen))
    assert (np.abs(found - shares @ seen) <= rounding + powers + floats).all()
