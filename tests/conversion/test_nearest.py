"""Nearest rounding: NumPy's road against what others say is best, the native core against NumPy bit for
bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native.one_op import supported_kernels

from rockledge.conversion import native_rows, nearest
from rockledge.errors import NativeError
from rockledge.formats.gaussian_tables import GAUSSIAN_TABLES
from rockledge.formats.table import decode

KERNELS = supported_kernels()


def rows_of(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, cols)) * 10.0 ** rng.integers(-4, 3, (rows, 1))).astype(np.float32)


def decoded(found: tuple[np.ndarray, np.ndarray, np.ndarray], bits: int) -> np.ndarray:
    codes, index, scale = found
    return decode(index, codes, np.array(GAUSSIAN_TABLES[bits], np.int8)) * scale[:, None].astype(np.float64)


@pytest.mark.parametrize("bits, energy", [(2, 0.073), (3, 0.018), (4, 0.0045)])
def test_normal_weights_lose_what_the_tables_promise(bits: int, energy: float) -> None:
    weights = rows_of(16, 4096)
    lost = np.square(decoded(nearest.round_rows(weights, bits), bits) - weights).sum(1) / np.square(
        weights
    ).sum(1)
    assert lost.mean() == pytest.approx(energy, rel=0.05)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_other_code_is_nearer_and_hardly_any_other_table_better(bits: int) -> None:
    weights = rows_of(6, 80, seed=3)
    codes, index, scale = nearest.round_rows(weights, bits)
    tables = np.array(GAUSSIAN_TABLES[bits], np.float64)
    # In the units of the fitted scale a border may lie a little beside the one that was rounded at.
    units = weights.astype(np.float64) / scale[:, None]
    errors = np.square(tables[None, None] - units.reshape(6, 5, 16)[..., None, None]).min(-1)
    chosen = np.square(tables[np.repeat(index, 16, 1), codes] - units)
    best = errors[np.arange(6)[:, None], np.arange(5)].sum(2).min(-1)
    assert chosen.reshape(6, 5, 16).sum() < 1.03 * best.sum()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("cols", [1, 7, 16, 40, 97, 576])
def test_kernels_equal_the_specification(kernel: str, bits: int, cols: int) -> None:
    weights = rows_of(9, cols, seed=cols)
    weights[2] = 0
    weights[3] *= np.float32(1e-38)
    weights[4, 0] *= 100
    for found, expected in zip(
        native_rows.round_rows(weights, bits, kernel), nearest.round_rows(weights, bits), strict=True
    ):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=30)
@given(
    seed=st.integers(0, 1 << 30),
    rows=st.integers(1, 5),
    cols=st.integers(1, 70),
    bits=st.sampled_from([2, 3, 4]),
)
def test_kernels_equal_the_specification_on_any_weights(
    kernel: str, seed: int, rows: int, cols: int, bits: int
) -> None:
    numbers = np.random.default_rng(seed).integers(0, 1 << 32, (rows, cols), dtype=np.uint64)
    weights = numbers.astype(np.uint32).view(np.float32)
    weights = np.where(np.isfinite(weights) & (np.abs(weights) < 1e15), weights, np.float32(0))
    for found, expected in zip(
        native_rows.round_rows(weights, bits, kernel), nearest.round_rows(weights, bits), strict=True
    ):
        assert np.array_equal(found, expected)


def test_rows_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(NativeError, match="too large"):
        native_rows.round_rows(np.full((1, 32), 1e30, np.float32), 4)


def test_integers_are_the_nearest() -> None:
    weights = rows_of(5, 33)
    weights[1] = 0
    w8, scale = nearest.round_integers(weights)
    assert np.abs(w8).max(1).tolist() == [127, 0, 127, 127, 127]
    assert (np.abs(w8 * scale[:, None] - weights) <= scale[:, None] * 0.5001).all()
