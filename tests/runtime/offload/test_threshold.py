"""From which steps on the NPU is taken: where both sides' formulas cross, and what moves that point."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.offload.linear_lists import linear, linears_like

from rockledge.board.boards import Board, find_board
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.runtime.offload.plan import PrefillPlan, plan_prefill
from rockledge.runtime.offload.threshold import Offloaded, cpu_seconds, npu_seconds

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
    linears = linears_like(name)
    plan = plan_prefill(linears, lanes=3, spaces=1, steps=STEP_ROWS, board=BOARD, budget=3 << 30)

    def seconds(tokens: int) -> tuple[float, float]:
        size = sum(rows < tokens for rows in STEP_ROWS)
        npu = cpu = 0.0
        for one, at in zip(linears, plan.linears, strict=True):
            slots = plan.block_slot[at.first_block : at.first_block + at.blocks]
            streamed = sum(slot >= plan.pinned for slot in slots)
            shape = plan.shapes[at.shape]
            npu += npu_seconds(Offloaded(one, shape, at.blocks, streamed), size, tokens, 3, BOARD)
            cpu += cpu_seconds(one, tokens, BOARD)
        return npu, cpu

    assert 1 < plan.from_rows < 64
    for tokens in (plan.from_rows, plan.from_rows + 1, 64, 65, 200, 256, 257, 512):
        npu, cpu = seconds(tokens)
        assert npu < cpu
    npu, cpu = seconds(plan.from_rows - 1)
    assert npu >= cpu


def test_small_models_stay_on_the_cpu() -> None:
    """Every product of a toy is over before the driver has started it."""
    assert from_rows("toy") == STEP_ROWS[-1] + 1


def test_what_moves_it() -> None:
    usual = from_rows("1b")
    # Slower starts and streamed weights make the NPU worth it later.
    assert from_rows("1b", board=BOARD.measured({"npu_submit_seconds": 1e-3}, "a slow driver")) > usual
    assert from_rows("1b", budget=300 << 20) > usual
    # A CPU that multiplies twice as fast too; one plane or two hardly matters.
    fast = BOARD.measured({"cpu_prefill_macs_per_cycle": 64}, "a faster CPU")
    assert from_rows("1b", board=fast) > usual


def test_the_cpu_side_by_hand() -> None:
    # 1024 x 1024 weights of 4 bits, 100 tokens: unpacking, then 32 products a cycle on four cores.
    one = linear(0, 1024, 1024)
    rate = BOARD.value("cpu_cores") * BOARD.value("cpu_hz")
    unpack = BOARD.value("cpu_unpack_cycles_per_weight_4_bits") * 2**20 / rate
    products = 100 * 2**20 / BOARD.value("cpu_prefill_macs_per_cycle") / rate
    assert cpu_seconds(one, 100, BOARD) == pytest.approx(unpack + products)
    assert cpu_seconds(linear(0, 1024, 1024, planes=2), 100, BOARD) == pytest.approx(unpack + 2 * products)
    slow = BOARD.measured({"cpu_read_bandwidth": 1e9}, "slow memory")
    assert cpu_seconds(one, 1, slow) == pytest.approx(one.stored_bytes / 1e9)


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
