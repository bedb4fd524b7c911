"""Softmax on the emulator: equal to NumPy to the bit, and within its bound against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu.programs.operator_runs import halves, outputs_of

from rockledge.errors import NpuError
from rockledge.npu.programs.softmax import softmax


def holds(x):
    """The stated bound, for both roundings of the interpolation."""
    wide = x.astype(np.float64)
    below = wide - wide.max(axis=1, keepdims=True)
    want = np.exp(below) / np.exp(below).sum(axis=1, keepdims=True)
    for found in outputs_of(softmax(*x.shape), x=x):
        assert (np.abs(found - want) <= want * (1 / 128 + np.abs(below) / 2048) + 3e-7).all()


@pytest.mark.parametrize("rows, columns", [(1, 1), (5, 31), (13, 129), (12, 4096)])
@pytest.mark.parametrize("scale", [0.0, 0.5, 4.0, 500.0])
def test_softmax_is_within_its_bound(rows, columns, scale):
    holds(halves(np.random.default_rng(columns).standard_normal((rows, columns)) * scale))


def test_softmax_of_a_long_row_keeps_its_tail():
    """4,095 scores far below one: with 15 bits of e^x alone their sum, 0.19, would be lost or tripled."""
    x = np.full((1, 4096), -10.0)
    x[0, 17] = 0
    holds(halves(x))


@pytest.mark.parametrize("at", [0, 7, 8, 31, 32, 99])
def test_softmax_finds_the_largest_score_wherever_it_is(at):
    x = np.full((2, 100), -30000.0)
    x[0, at], x[1, 99 - at] = 30000.0, -29000.0
    holds(halves(x))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 70), st.lists(st.floats(-30000, 30000, width=16), min_size=1, max_size=70))
def test_softmax_of_any_row_is_within_its_bound(columns, values):
    holds(np.resize(halves(values), (1, columns)))


def test_softmax_beyond_a_limit_is_refused():
    with pytest.raises(NpuError, match="4097 columns, expected 1 to 4096"):
        softmax(1, 4097)
    with pytest.raises(NpuError, match="64 rows and 4096 inputs needs 16 data and 8 weight banks"):
        softmax(64, 4096)
    with pytest.raises(NpuError, match="a score of a softmax is beyond 30000 or no number"):
        softmax(1, 2).packed({"x": halves([[1, np.inf]])})


@pytest.mark.parametrize("columns", [3, 8])
def test_a_row_of_another_length_is_refused(columns):
    """A larger score in a padded column would be the maximum of the row."""
    with pytest.raises(NpuError, match=rf"float16 \[1, {columns}\], expected float16 \[1, 5\]"):
        softmax(1, 5).twin({"x": halves([[1, 2, 3, 4, 5, 100, 100, 100][:columns]])})
