"""Confidence intervals: what they cover, and that windows, not tokens, are what is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rockledge.eval.intervals import mean_interval, share_interval


def test_they_cover_the_true_mean_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        # Every window has its own level: tokens of one window are far from independent.
        values = random.normal(3.0, 1.0, (40, 1)) + random.normal(0, 0.1, (40, 25))
        low, high = mean_interval(values)
        inside += low <= 3.0 <= high
    assert 175 <= inside <= 199


def test_equal_windows_have_no_width_and_unequal_ones_the_normal_one() -> None:
    assert mean_interval(np.full((5, 7), 2.5)) == (2.5, 2.5)
    values = np.random.default_rng(2).normal(0, 1, (400, 1))
    low, high = mean_interval(values)
    half = 1.96 * float(values.std(ddof=1)) / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_one_window_is_taken_apart() -> None:
    values = np.random.default_rng(3).normal(0, 1, (1, 100))
    assert mean_interval(values) == mean_interval(values.reshape(100, 1))
    low, high = mean_interval(values)
    assert low < values.mean() < high


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 1000))
def test_laws(blocks: int, size: int, seed: int) -> None:
    values = np.random.default_rng(seed).exponential(1, (blocks, size))
    low, high = mean_interval(values)
    tiny = 1e-12
    assert values.min() - tiny <= low <= high <= values.max() + tiny
    assert mean_interval(values) == (low, high)
    shifted_low, shifted_high = mean_interval(values + 5)
    assert (shifted_low - 5, shifted_high - 5) == pytest.approx((low, high), abs=1e-9)


@given(st.integers(1, 300).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_shares_have_the_interval_that_scipy_gives(answers: tuple[int, int]) -> None:
    expected = binomtest(*answers).proportion_ci(0.95, method="wilson")
    assert share_interval(*answers) == pytest.approx((expected.low, expected.high), abs=1e-9)
