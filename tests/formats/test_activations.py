"""Activation planes: symmetric, bounded, and as exact as their number of bits allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rockledge.errors import UsageError
from rockledge.formats.activations import dequantize_activations, quantize_activations

rows = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.floats(-1e6, 1e6, width=32)
)


@given(rows, st.sampled_from([1, 2]))
def test_error_is_at_most_half_a_step(x, planes):
    q, scale = quantize_activations(x, planes)
    assert q.shape == (len(x), planes, x.shape[1])
    assert q.dtype == np.int8
    assert scale.dtype == np.float32
    steps = {1: 127, 2: 32512}[planes]
    half = np.abs(x).max(axis=1, keepdims=True) / steps * 0.5
    error = np.abs(dequantize_activations(q, scale).astype(np.float64) - x)
    assert (error <= half * 1.01 + 1e-35).all()  # 1.01: the scale and its inverse are rounded to fp32


@given(rows)
def test_planes_stay_in_range_and_combine(x):
    q, _ = quantize_activations(x, 2)
    assert np.abs(q[:, 0].astype(int)).max() <= 127
    one, _ = quantize_activations(x, 1)
    assert np.abs(one.astype(int)).max() <= 127


def test_rounding_is_half_to_even():
    q, scale = quantize_activations(np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32), 1)
    assert q[0, 0].tolist() == [127, 0, 2, 2, 0, -2]
    assert scale.tolist() == [1.0]


def test_two_planes_carry_signed_low_bytes():
    q, scale = quantize_activations(np.array([[32512.0, 128.0, 127.0, -129.0, -32512.0]], np.float32), 2)
    assert scale.tolist() == [1.0]
    assert q[0].tolist() == [[127, 1, 0, -1, -127], [0, -128, 127, 127, 0]]


def test_rows_of_nothing_become_zeros():
    q, scale = quantize_activations(np.array([[0.0, 0.0], [1e-40, -1e-40], [3.0, -1.0]], np.float32), 1)
    assert q[:2].tolist() == [[[0, 0]], [[0, 0]]]
    assert scale[:2].tolist() == [0.0, 0.0]
    assert q[2, 0].tolist() == [127, -42]


def test_other_numbers_of_planes_are_refused():
    with pytest.raises(UsageError):
        quantize_activations(np.ones((1, 4), np.float32), 3)
