"""Attention on the NPU: scores by counting, a published run, and what more work or a faster board must do."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.attention_forms import (
    BLOCK_ROWS,
    CPU_SOFTMAX,
    EXP_IN_OUTPUT,
    FORMS,
    NPU_SOFTMAX,
    npu_attention,
    npu_kv_bytes,
)
from rockledge.board.boards import find_board

BOARD = find_board("rk3588-8gb")
forms = st.sampled_from(FORMS)


@dataclass(frozen=True)
class Shape:
    hidden: int = 4096
    layers: int = 1
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    ffn: int = 14336
    vocab: int = 1000
    windows: tuple[int, ...] = ()


SHAPE = Shape()


@given(st.integers(1, 300), st.integers(0, 1000), forms)
def test_scores_are_those_of_whole_blocks_up_to_the_last_row(rows: int, start: int, form: str) -> None:
    """What a row sees is among them, and no more than a block and 31 positions beyond."""
    found = npu_attention(BOARD, SHAPE, rows, start, form).scores
    seen = SHAPE.heads * sum(start + row + 1 for row in range(rows))
    assert seen <= found < seen + SHAPE.heads * rows * (BLOCK_ROWS + 32)


@given(st.integers(1, 300), st.integers(0, 1000), st.integers(1, 700), forms)
def test_scores_of_a_window_begin_where_the_first_row_sees(
    rows: int, start: int, window: int, form: str
) -> None:
    found = npu_attention(BOARD, SHAPE, rows, start, form, window=window).scores
    seen = SHAPE.heads * sum(min(start + row + 1, window) for row in range(rows))
    assert seen <= found < seen + SHAPE.heads * rows * (BLOCK_ROWS + 64)


@given(st.integers(1, 512), st.integers(0, 8192), forms)
def test_it_takes_no_less_than_each_side_alone(rows: int, start: int, form: str) -> None:
    found = npu_attention(BOARD, SHAPE, rows, start, form)
    assert found.seconds >= max(found.npu, found.bus, found.cpu) > 0


@given(st.integers(0, 8000), st.integers(1, 4000), forms)
def test_a_longer_past_takes_no_less(start: int, more: int, form: str) -> None:
    near, far = (npu_attention(BOARD, SHAPE, 512, at, form) for at in (start, start + more))
    assert near.bus <= far.bus
    assert near.scores <= far.scores
    assert near.syncs.bytes <= far.syncs.bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "fact", ["npu_hz", "npu_bus_bandwidth", "npu_core_bandwidth", "cpu_hz", "cpu_cache_sync_bandwidth"]
)
def test_a_faster_board_takes_no_more(form: str, fact: str) -> None:
    faster = BOARD.measured({fact: 2 * BOARD.value(fact)}, "twice")
    assert (
        npu_attention(faster, SHAPE, 512, 512, form).seconds
        <= npu_attention(BOARD, SHAPE, 512, 512, form).seconds
    )


@pytest.mark.parametrize("cores, published", [(1, 3.85e-3), (2, 3.08e-3), (3, 2.68e-3)])
def test_a_published_run_is_met(cores: int, published: float) -> None:
    """happyme531/rknpu2_matmul_open docs/ATTENTION.md: 32 queries x 4,096 keys; nothing was fitted."""
    board = BOARD.measured({"npu_cores": cores}, "fewer cores")
    found = npu_attention(board, SHAPE, 32, 4096, EXP_IN_OUTPUT, masked=False).seconds
    assert found == pytest.approx(published, rel=0.45)


def test_bytes_by_hand() -> None:
    """A block of one KV head with one head: 64 rows, 64 keys, a head of 128."""
    one = Shape(heads=1, kv_heads=1)
    found = npu_attention(BOARD, one, 64, 0, CPU_SOFTMAX)
    laid_out, scores, sums = 2 * 128 * 64, 64 * 64, 2 * 64 * 128
    assert found.scores == scores
    # Keys and values, sums, int32 scores to the CPU, two planes of weights back.
    assert found.syncs.bytes == laid_out + 4 * sums + (4 + 2) * scores
    operands = 64 * 128 + 64 * 128 + 2 * scores + 2 * 64 * 128
    written = 4 * scores + 4 * sums
    moved = operands + written + 2 * BOARD.value("npu_program_bytes")
    crossed = 2 * laid_out + 4 * sums + 6 * scores
    assert found.bus == pytest.approx((moved + crossed) / BOARD.value("npu_bus_bandwidth"))


def test_softmax_there_costs_the_published_time_of_every_score() -> None:
    found = npu_attention(BOARD, SHAPE, 512, 0, NPU_SOFTMAX)
    assert found.npu > found.scores * BOARD.value("npu_softmax_seconds")


def test_keys_and_values_lie_beside_the_cache() -> None:
    assert npu_kv_bytes(Shape(layers=32), 8192, CPU_SOFTMAX) == 32 * 2 * 8 * 128 * 8192
    assert npu_kv_bytes(SHAPE, 1, EXP_IN_OUTPUT) == 2 * npu_kv_bytes(SHAPE, 1, CPU_SOFTMAX)
