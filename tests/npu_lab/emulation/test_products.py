"""Sums of products: exact integers, and floats rounded where and only where the model says."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge_npu_lab.emulation.options import FloatSum, Options
from rockledge_npu_lab.emulation.products import float_products, integer_products, round_exactly, rounded_sums


def nearest_fp32(exact: Fraction) -> np.float32:
    """fp32 nearest to a number, ties to even, by comparing neighbours exactly."""
    middle = np.float32(float(exact))
    near = [np.nextafter(middle, np.float32(-np.inf)), middle, np.nextafter(middle, np.float32(np.inf))]

    def rank(x: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(x)) - exact), int(np.array(x).view(np.uint32)) & 1

    return min((x for x in near if np.isfinite(x)), key=rank)


def exact_sum(a: np.ndarray, b: np.ndarray) -> Fraction:
    return sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))


HALVES = st.integers(0, 0xFFFF).map(
    lambda bits: np.array(bits, np.uint16).view(np.float16).astype(np.float64)
)
FINITE_HALVES = HALVES.filter(np.isfinite).map(float)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FINITE_HALVES, FINITE_HALVES), min_size=1, max_size=32))
def test_any_fp16_run_is_summed_exactly_and_rounded_once(pairs):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    found = rounded_sums(a[None, :], b[None, :])[0, 0]
    assert found == nearest_fp32(exact_sum(a, b))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**13), 2**13), min_size=3, max_size=3), st.integers(0, 40))
def test_ties_and_what_breaks_them(parts, shift):
    # A large product, one that makes a tie of it, and one far below float64's last bit.
    terms = np.array([parts[0] * 2.0**27, parts[1] * 2.0**3, parts[2] * 2.0**-shift * 2.0**-40])
    exact = sum((Fraction(float(term)) for term in terms), Fraction(0))
    assert round_exactly(terms[None, :])[0] == nearest_fp32(exact)


def test_a_tie_that_float64_cannot_see_is_broken():
    # 2^24 + 1 is a tie in fp32; 2^-48 more is not, but float64 rounds it away.
    a = np.array([4096.0, 1.0, 2.0**-24])
    b = np.array([4096.0, 1.0, 2.0**-24])
    assert (a * b).sum() == 2.0**24 + 1
    assert rounded_sums(a[None], b[None])[0, 0] == 2.0**24 + 2
    assert rounded_sums(a[None], (b * [1, 1, -1])[None])[0, 0] == 2.0**24


def test_runs_are_added_in_order_in_fp32():
    random = np.random.default_rng(1)
    a, b = (random.standard_normal((5, 160)).astype(np.float16).astype(np.float64) for _ in range(2))
    expected = np.zeros((5, 5), np.float32)
    for first in range(0, 160, 32):
        run = slice(first, first + 32)
        for m in range(5):
            for n in range(5):
                expected[m, n] += nearest_fp32(exact_sum(a[m, run], b[n, run]))
    np.testing.assert_array_equal(float_products(a, b, Options(), True), expected)


def test_inputs_in_order_round_at_every_step():
    random = np.random.default_rng(2)
    a, b = (random.standard_normal((3, 40)).astype(np.float16).astype(np.float64) for _ in range(2))
    expected = np.zeros((3, 3), np.float32)
    for k in range(40):
        expected += np.float32(a[:, k, None] * b[None, :, k])
    found = float_products(a, b, Options(float_sum=FloatSum.IN_ORDER), True)
    np.testing.assert_array_equal(found, expected)


def test_the_bound_of_the_sheet_separates_runs_from_steps():
    # Section 9.2: 3e-6 of the rms lies between runs of 32 and k-sequential fp32 at K = 768.
    random = np.random.default_rng(3)
    a, b = (random.standard_normal((64, 768)).astype(np.float16).astype(np.float64) for _ in range(2))
    exact = a @ b.T
    rms = np.sqrt(np.mean(exact**2))
    runs, steps = (
        np.abs(float_products(a, b, Options(float_sum=how), True) - exact).max() / rms
        for how in (FloatSum.GROUPS_OF_32, FloatSum.IN_ORDER)
    )
    assert runs < 3e-6 < steps


@pytest.mark.parametrize("special", [np.inf, np.nan])
def test_infinities_and_nan_go_through(special):
    a, b = np.ones((2, 64)), np.ones((3, 64))
    a[1, 40] = special
    found = float_products(a, b, Options(), True)
    assert (found[0] == 64).all()
    assert np.array_equal(found[1], np.full(3, special), equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 80), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_integers_are_exact(pixels, runs, blocks, seed):
    random = np.random.default_rng(seed)
    a = random.integers(-128, 128, (2 * runs, pixels, 16), np.int8)
    kernels = random.integers(-128, 128, (blocks, runs, 32, 32), np.int8)
    plain = a.transpose(1, 0, 2).reshape(pixels, -1).astype(np.int64)
    b = kernels.transpose(0, 2, 1, 3).reshape(32 * blocks, -1).astype(np.int64)
    np.testing.assert_array_equal(integer_products(a, kernels), plain @ b.T)


def test_the_largest_sums_are_exact():
    # 16,384 products of 2^14: 2^28, reached in sixteen exact float32 sums of 2^24.
    a = np.full((1024, 1, 16), -128, np.int8)
    kernels = np.full((1, 512, 32, 32), -128, np.int8)
    assert set(integer_products(a, kernels).ravel().tolist()) == {2**28}
    kernels[:, 0, :, 0] = -127
    assert set(integer_products(a, kernels).ravel().tolist()) == {2**28 - 128}
