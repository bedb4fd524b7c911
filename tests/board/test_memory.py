"""The memory plan: adds up to the board's RAM, honours the NPU's window, and says what would fit."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import BOARDS, find_board
from rockledge.board.memory import (
    MemoryPlan,
    cache_bytes,
    kv_bytes,
    plan_memory,
    weight_budget,
    working_bytes,
)
from rockledge.errors import BudgetError


@dataclass(frozen=True)
class Shape:
    hidden: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    ffn: int = 14336
    vocab: int = 128256
    windows: tuple[int, ...] = ()
    headless: bool = False


LLAMA3_8B = Shape()
PARAMETERS_8B = 8.03e9
BOARD = find_board("rk3588-8gb")


def test_kv_of_llama3_8b() -> None:
    # 32 layers x 8 heads x (K and V) x (128 int8 + 4 bytes of scale) = 67584 bytes a token.
    assert kv_bytes(LLAMA3_8B, 1) == 67584
    assert kv_bytes(LLAMA3_8B, 8192) / 2**30 == pytest.approx(0.52, abs=0.01)


def test_keys_and_values_take_whole_tiles_and_whole_pages() -> None:
    # Heads of 80 lie in 96 bytes, so a token of 32 layers and 8 heads takes 2 x 32 x 8 x (96 + 4) bytes.
    assert kv_bytes(replace(LLAMA3_8B, head_dim=80), 1) == 51200
    assert cache_bytes(LLAMA3_8B, 1, 256) == cache_bytes(LLAMA3_8B, 32, 256) == 32 * 67584
    assert cache_bytes(LLAMA3_8B, 33, 256) == 64 * 67584


def free_bytes(plan: MemoryPlan) -> int:
    """RAM that nothing in a plan uses."""
    working = plan.kv_bytes + plan.arena_bytes + plan.npu_buffers_bytes
    return plan.ram_bytes - plan.reserved_bytes - working - plan.weights_bytes


def test_layers_with_a_window_cache_no_more_than_it_reaches() -> None:
    """By hand: 4096 + 255 positions lie in at most 137 pages of 32, four times that is below 4096 pages."""
    half = replace(LLAMA3_8B, windows=(4096, 0) * 16)
    layer = 67584 // 32
    assert cache_bytes(half, 131072, 256) == 16 * layer * 32 * (4096 + 4 * 137)
    assert cache_bytes(half, 131072, 256, sequences=1) == 16 * layer * 32 * (4096 + 137)
    assert cache_bytes(half, 4000, 256) == cache_bytes(LLAMA3_8B, 4000, 256)
    assert kv_bytes(half, 131072) == 16 * layer * (131072 + 4096)
    contexts = []
    for shape in (LLAMA3_8B, half):
        with pytest.raises(BudgetError) as failure:
            plan_memory(BOARD, shape, 1 << 20, weights_bytes=4_500_000_000)
        longest = int(str(failure.value).split(" tokens")[-2].split()[-1])
        plan_memory(BOARD, shape, longest, weights_bytes=4_500_000_000)
        with pytest.raises(BudgetError):
            plan_memory(BOARD, shape, longest + 1, weights_bytes=4_500_000_000)
        contexts.append(longest)
    assert contexts[1] > 1.4 * contexts[0]
    everywhere = replace(LLAMA3_8B, windows=(4096,) * 32)
    assert plan_memory(BOARD, everywhere, 1 << 17, weights_bytes=4_000_000_000).kv_bytes == 67584 * 32 * 4 * (
        -(-(4096 + 510) // 32) + 1
    )


def test_8b_fits_an_8_gb_board_at_5_bits_but_not_at_8() -> None:
    budget = weight_budget(BOARD, LLAMA3_8B, 8192)
    assert PARAMETERS_8B * 5 / 8 < budget < PARAMETERS_8B
    with pytest.raises(BudgetError, match="smaller model"):
        plan_memory(BOARD, LLAMA3_8B, 8192, weights_bytes=int(PARAMETERS_8B))


def test_impossible_context_names_the_longest_possible_one() -> None:
    with pytest.raises(BudgetError) as failure:
        plan_memory(BOARD, LLAMA3_8B, 131072, weights_bytes=4_500_000_000)
    longest = int(str(failure.value).split(" tokens")[-2].split()[-1])
    assert free_bytes(plan_memory(BOARD, LLAMA3_8B, longest, weights_bytes=4_500_000_000)) >= 0
    with pytest.raises(BudgetError):
        plan_memory(BOARD, LLAMA3_8B, longest + 1, weights_bytes=4_500_000_000)


@given(
    st.sampled_from(sorted(name for name, board in BOARDS.items() if not board.chip.refused)),
    st.integers(1, 65536),
    st.integers(0, 12_000_000_000),
    st.integers(1, 512),
)
def test_plans_add_up(board_name: str, context: int, weights: int, rows: int) -> None:
    board = find_board(board_name)
    try:
        plan = plan_memory(board, LLAMA3_8B, context, weights_bytes=weights, step_rows=rows)
    except BudgetError:
        needed = weights + working_bytes(LLAMA3_8B, rows, context, 4)
        assert needed > board.ram_bytes - 2_000_000_000
        return
    assert free_bytes(plan) >= 0
    assert plan.weights_bytes == weights
    most = int(3.5 * 2**30) if board.has_npu else 0
    assert plan.npu_buffers_bytes <= most
    # The NPU is only denied memory that is needed elsewhere.
    assert free_bytes(plan) == 0 or plan.npu_buffers_bytes == most


@given(st.integers(1, 30000))
def test_budget_is_the_largest_that_fits(context: int) -> None:
    budget = weight_budget(BOARD, LLAMA3_8B, context)
    assert free_bytes(plan_memory(BOARD, LLAMA3_8B, context, weights_bytes=budget)) == 0
    with pytest.raises(BudgetError):
        plan_memory(BOARD, LLAMA3_8B, context, weights_bytes=budget + 1)
