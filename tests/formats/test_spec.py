"""The specification of the integer core: exact sums, and an epilogue that rounds where it says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rockledge.formats.activations import dequantize_activations, quantize_activations
from rockledge.formats.bands import Band
from rockledge.formats.packing import dequantize, pack
from rockledge.formats.spec import epilogue, integer_sums, linear


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 2), st.integers(1, 9), st.integers(1, 70))
def test_sums_are_those_of_whole_numbers(seed, tokens, planes, rows, cols):
    random = np.random.default_rng(seed)
    q = random.integers(-128, 128, (tokens, planes, cols)).astype(np.int8)
    w8 = random.integers(-127, 128, (rows, cols)).astype(np.int8)
    expected = np.einsum("tpk,nk->tpn", q.astype(np.int64), w8.astype(np.int64))
    assert (integer_sums(q, w8) == expected).all()


def test_the_largest_sums_are_exact():
    cols = 14336
    q = np.full((1, 2, cols), -128, np.int8)
    w8 = np.full((2, cols), 127, np.int8)
    w8[1, 0] = 126
    assert integer_sums(q, w8).tolist() == [[[-128 * 127 * cols, -128 * 127 * cols + 128]] * 2]


def test_the_epilogue_rounds_once_for_each_step():
    sums = np.array([[[16777217]]], np.int64)  # 2^24 + 1: rounds to 2^24 in fp32
    scale, x_scale = np.array([0.1], np.float32), np.array([0.3], np.float32)
    product = np.float32(0.1) * np.float32(0.3)
    y = epilogue(sums, scale, x_scale)
    assert y[0, 0] == np.float32(16777216) * product
    bias, residual = np.array([0.7], np.float32), np.array([[1e5]], np.float32)
    assert epilogue(sums, scale, x_scale, bias, residual)[0, 0] == (y[0, 0] + bias[0]) + residual[0, 0]


def test_planes_combine_before_they_are_rounded():
    sums = np.array([[[2**24], [1]]], np.int64)
    one = np.ones(1, np.float32)
    assert epilogue(sums, one, one)[0, 0] == np.float32(256 * 2**24 + 1)
    assert epilogue(np.array([[[3], [-5]]], np.int64), one, one)[0, 0] == 763.0


def test_a_linear_is_near_the_float_product():
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (24, 48)).astype(np.uint8)
    index = random.integers(0, 16, (24, 3)).astype(np.uint8)
    tables = {4: random.integers(-127, 128, (16, 16)).astype(np.int8)}
    bias = random.standard_normal(24).astype(np.float32)
    packed = pack(codes, index, tables, np.full(24, 0.01, np.float32), (Band(0, 24, 4),), bias)
    x = random.standard_normal((5, 48)).astype(np.float32)
    q, scale = quantize_activations(x, 2)
    expected = (
        dequantize_activations(q, scale).astype(np.float64) @ dequantize(packed).T.astype(np.float64) + bias
    )
    assert np.allclose(linear(q, scale, packed), expected, atol=1e-5)
    residual = random.standard_normal((5, 24)).astype(np.float32)
    assert np.allclose(linear(q, scale, packed, residual), expected + residual, atol=1e-5)
