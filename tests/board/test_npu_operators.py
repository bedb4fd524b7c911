"""Softmax and norms by themselves: the published runs come back, and the CPU is faster at every size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import find_board
from rockledge.board.npu_operators import (
    cpu_norm_seconds,
    cpu_softmax_seconds,
    npu_norm_seconds,
    npu_softmax_seconds,
)

BOARD = find_board("rk3588-8gb")
FREE_SYNCS = BOARD.measured({"npu_sync_call_seconds": 1e-9, "cpu_cache_sync_bandwidth": 1e13}, "no syncs")


def test_softmax_takes_the_published_time() -> None:
    """oRKLLM/ork-driver: 256 x 64 in 471 us."""
    assert npu_softmax_seconds(FREE_SYNCS, 256 * 64) == pytest.approx(471e-6, rel=1e-3)
    assert npu_softmax_seconds(BOARD, 256 * 64) > 471e-6


def test_a_norm_takes_the_published_submits() -> None:
    """gregordinary/rockchip-npu-notes: about 60 for 512 x 3840, of 100 us each as ork-driver has them."""
    floats = 4 * 512 * 3840 / BOARD.value("npu_bus_bandwidth")
    assert npu_norm_seconds(FREE_SYNCS, 512, 3840) == pytest.approx(60 * 100e-6 + floats, rel=1e-3)


@given(st.integers(1, 1024), st.integers(1, 16384))
def test_by_themselves_neither_pays(rows: int, width: int) -> None:
    assert cpu_norm_seconds(BOARD, rows, width) < npu_norm_seconds(BOARD, rows, width)
    assert cpu_softmax_seconds(BOARD, rows * width) < npu_softmax_seconds(BOARD, rows * width)


@given(st.integers(1, 1024), st.integers(1, 16384), st.integers(0, 1024))
def test_more_takes_no_less(rows: int, width: int, more: int) -> None:
    assert npu_norm_seconds(BOARD, rows, width) <= npu_norm_seconds(BOARD, rows + more, width)
    assert npu_softmax_seconds(BOARD, rows) <= npu_softmax_seconds(BOARD, rows + more)
