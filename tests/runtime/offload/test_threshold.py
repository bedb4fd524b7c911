"""From which steps on the NPU is taken: where both sides' formulas cross, and what moves that point."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.offload.linear_lists import linears_like

from rockledge.board.boards import Board, find_board
from rockledge.board.npu_drivers import board_with_driver
from rockledge.board.prefill import cpu_linear_seconds
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.runtime.offload.plan import PrefillPlan, plan_prefill

BOARD = find_board("rk3588-8gb")


def planned(name: str, budget: int = 3 << 30) -> PrefillPlan:
    return plan_prefill(linears_like(name), lanes=3, spaces=1, steps=STEP_ROWS, board=BOARD, budget=budget)


def from_rows(name: str, budget: int = 3 << 30, board: Board = BOARD, **kind: int) -> int:
    plan = plan_prefill(
        linears_like(name, **kind), lanes=3, spaces=1, steps=STEP_ROWS, board=board, budget=budget
    )
    return plan.from_rows


@pytest.mark.parametrize("name", ["135m", "8b"])
def test_from_there_on_every_step_is_faster_and_the_one_before_is_not(name: str) -> None:
    plan = PLANS[name]
    assert 1 < plan.from_rows < 100
    for tokens in (plan.from_rows, plan.from_rows + 1, 128, 200, 256, 257, 512):
        assert plan.times.npu(tokens) < plan.times.cpu(tokens)
    assert plan.times.npu(plan.from_rows - 1) >= plan.times.cpu(plan.from_rows - 1)


@pytest.mark.parametrize("spaces", [1, 3])
@pytest.mark.parametrize("submit", [1e-5, 1e-4, 1e-3])
def test_it_is_the_first_after_the_last_step_that_is_not_faster(spaces: int, submit: float) -> None:
    """Every step size is looked at, although the search does not."""
    board = BOARD.measured({"npu_submit_seconds": submit}, "a driver")
    times = plan_prefill(
        linears_like("135m"), lanes=3, spaces=spaces, steps=(64, 128), board=board, budget=3 << 30
    ).times
    slower = [tokens for tokens in range(1, 129) if times.npu(tokens) >= times.cpu(tokens)]
    assert times.threshold() == max(slower, default=0) + 1


@pytest.mark.parametrize("spaces", [1, 3])
def test_a_step_is_the_sum_of_its_linears(spaces: int) -> None:
    linears = linears_like("1b")
    plan = plan_prefill(linears, lanes=3, spaces=spaces, steps=STEP_ROWS, board=BOARD, budget=600 << 20)
    found = list(plan.times.linears(300))
    assert sum(count for count, _ in found) == len(linears)
    assert plan.times.npu(300) == pytest.approx(sum(count * time.seconds for count, time in found))
    assert plan.times.cpu(300) == pytest.approx(sum(cpu_linear_seconds(BOARD, one, 300) for one in linears))


def test_what_is_handed_over_follows_the_rows_with_the_vendors_driver_alone() -> None:
    """Rows of tiles that a step does not use are padding; mainline's driver knows whole buffers."""
    moved = {}
    for spaces in (1, 3):
        plan = plan_prefill(
            linears_like("8b"), lanes=3, spaces=spaces, steps=STEP_ROWS, board=BOARD, budget=3 << 30
        )
        for tokens in (10, 257, 512):
            times = plan.times.linears(tokens)
            moved[spaces, tokens] = sum(count * time.syncs.bytes for count, time in times)
    assert moved[1, 10] < moved[1, 257] < moved[1, 512]
    assert moved[3, 10] <= moved[3, 257] == moved[3, 512]


def test_small_models_stay_on_the_cpu() -> None:
    """Every product of a toy is over before the driver has started it."""
    assert from_rows("toy") == STEP_ROWS[-1] + 1


def test_what_moves_it() -> None:
    usual = from_rows("1b")
    # Slower starts and streamed weights make the NPU worth it later.
    assert from_rows("1b", board=BOARD.measured({"npu_submit_seconds": 1e-3}, "a slow driver")) > usual
    assert from_rows("1b", budget=300 << 20) > usual
    # A CPU that multiplies twice as fast too.
    fast = BOARD.measured({"cpu_prefill_macs_per_cycle": 64}, "a faster CPU")
    assert from_rows("1b", board=fast) > usual


def test_slow_caches_and_a_slow_clock_move_it() -> None:
    usual = from_rows("1b")
    assert from_rows("1b", board=BOARD.measured({"cpu_cache_sync_bandwidth": 1e9}, "slow caches")) > usual
    assert from_rows("1b", board=BOARD.measured({"npu_sync_call_seconds": 1e-4}, "slow calls")) > usual
    assert from_rows("1b", board=board_with_driver(BOARD, "rocket")) > usual


@given(st.sampled_from(["135m", "1b", "8b"]), st.integers(1, 1200), st.integers(1, 512))
def test_chunks_are_the_whole_prompt_and_no_slower_than_padding(name: str, tokens: int, rows: int) -> None:
    plan = PLANS[name]
    chunks = plan.times.chunks(tokens, rows)
    assert sum(chunks) == tokens
    assert all(0 < size <= 512 for size in chunks)

    def seconds(sizes: Iterable[int]) -> float:
        return sum(plan.times.npu(size) if size >= rows else plan.times.cpu(size) for size in sizes)

    simple = [512] * (tokens // 512) + [tokens % 512] * (tokens % 512 > 0)
    assert seconds(chunks) <= seconds(simple) * (1 + 1e-9)


def test_padding_is_avoided_where_it_costs_more_than_another_step() -> None:
    one, other = PLANS["1b"].chunks(300)  # 512 rows take longer than 256 and 64
    assert {one <= 64, other <= 64} == {True, False}
    assert PLANS["1b"].chunks(1024) == (512, 512)
    assert PLANS["1b"].chunks(500) == (500,)
    assert PLANS["1b"].chunks(5) == (5,)
    assert planned("8b", 300 << 20).chunks(300) == (300,)  # all weights would be unpacked again


PLANS = {name: planned(name) for name in ("135m", "1b", "8b")}
