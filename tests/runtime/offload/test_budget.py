"""Memory for the NPU: the board's plan, the user's limit and what is free, whichever is least."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.offload.linear_lists import linears_like

from rockledge.board.boards import find_board
from rockledge.board.memory import working_bytes
from rockledge.errors import BudgetError, NpuError
from rockledge.runtime.offload.budget import free_bytes, largest_plan, npu_budget, this_board
from rockledge.synth import SHAPES

BOARD = find_board("rk3588-8gb")
LLAMA_8B, WEIGHTS_8B = SHAPES["8b"], 4_270_000_000
AMPLE = int(3.5 * 2**30)


def test_an_8b_with_8k_tokens_stays_within_six_and_a_half_gigabytes() -> None:
    others = WEIGHTS_8B + working_bytes(LLAMA_8B, 512, 8192, 4)
    budget = npu_budget(
        BOARD, LLAMA_8B, context=8192, rows=512, weights=WEIGHTS_8B, others=others, memory=None, free=None
    )
    plan = largest_plan(
        linears_like("8b"), lanes=3, spaces=1, board=BOARD, context=8192, budget=lambda rows: budget
    )
    assert plan.steps == (64, 128, 256, 512)
    assert 1e9 < plan.bytes <= budget
    assert others + plan.bytes + BOARD.value("process_reserve") < 6.5e9


@given(
    st.sampled_from(["rk3588-4gb", "rk3588-8gb", "rk3588-16gb"]),
    st.integers(0, 9_000_000_000),
    st.none() | st.integers(0, 12_000_000_000),
    st.none() | st.integers(0, 12_000_000_000),
)
def test_no_limit_is_passed(board_name: str, weights: int, memory: int | None, free: int | None) -> None:
    board = find_board(board_name)
    others = weights + working_bytes(LLAMA_8B, 256, 4096, 4)
    try:
        budget = npu_budget(
            board, LLAMA_8B, context=4096, rows=256, weights=weights, others=others, memory=memory, free=free
        )
    except BudgetError:
        assert others > board.ram_bytes - 2_000_000_000
        return
    assert 0 <= budget <= AMPLE
    for limit in (memory, free):
        assert limit is None or budget <= max(0, limit - others)
    assert budget + others < board.ram_bytes


def test_a_small_model_gets_all_it_can_use() -> None:
    shape = SHAPES["135m"]
    budget = npu_budget(
        BOARD, shape, context=2048, rows=512, weights=90_000_000, others=200_000_000, memory=None, free=None
    )
    assert budget == AMPLE


def test_steps_become_smaller_before_the_npu_is_given_up() -> None:
    linears = linears_like("1b")

    def largest(left: int, context: int = 4096) -> tuple[int, ...]:
        return largest_plan(
            linears,
            lanes=3,
            spaces=1,
            board=BOARD,
            context=context,
            budget=lambda rows: left - 100_000 * rows,
        ).steps

    assert largest(1 << 30) == (64, 128, 256, 512)
    # No context needs programs for steps that never come.
    assert largest(1 << 30, context=200) == (64, 128, 256)
    assert largest(1 << 30, context=30) == (64,)
    tight = [largest(left)[-1] for left in range(110_000_000, 45_000_000, -5_000_000)]
    assert tight == sorted(tight, reverse=True)
    assert len(set(tight)) > 1
    with pytest.raises(BudgetError, match="prefill on the NPU needs more"):
        largest(10_000_000)


def test_what_the_system_says_is_free(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       8053064 kB\nMemAvailable:   5000000 kB\n")
    assert free_bytes(file) == 5_000_000 * 1024
    file.write_text("MemTotal:       8053064 kB\n")
    assert free_bytes(file) is None
    assert free_bytes(tmp_path / "none") is None


@pytest.mark.parametrize("names", [None, "radxa,rock-5b\0rockchip,rk3588\0", "x\0rockchip,rk3588s\0"])
def test_this_machine_is_some_board_of_the_chip(tmp_path: Path, names: str | None) -> None:
    """Without a device tree there can only be the virtual NPU, which is an RK3588's."""
    assert this_board(_machine(tmp_path, names)).name.startswith("rk3588-")


def test_a_chip_without_an_npu_can_have_the_virtual_one(tmp_path: Path) -> None:
    pi = _machine(tmp_path, "raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert this_board(pi).name.startswith("rk3588-")


@pytest.mark.parametrize("chip", ["rk3576", "rk3568", "rk3566"])
def test_programs_are_not_tried_on_another_chip(tmp_path: Path, chip: str) -> None:
    with pytest.raises(NpuError, match=r"(?i)rk35.*other programs"):
        this_board(_machine(tmp_path, f"someone,board\0rockchip,{chip}\0"))


def _machine(root: Path, compatible: str | None) -> Path:
    if compatible is not None:
        (root / "proc/device-tree").mkdir(parents=True)
        (root / "proc/device-tree/compatible").write_text(compatible)
    return root
