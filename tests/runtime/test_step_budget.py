"""Rows of prompts beside answers: whole tiles, within the time they may take, on a simulated machine."""

import pytest

from rockledge.runtime.step_budget import ALONE_S, MOST, SHARE, TILE, StepBudget


def machine(decode_rows: int, prompt_rows: int) -> float:
    """Seconds of a step: a part for reading weights, one for each tile of rows."""
    tiles = -(-(decode_rows + prompt_rows) // TILE)
    return 0.005 + 0.0005 * tiles


def settled(budget: StepBudget, decode_rows: int, steps: int = 100) -> list[tuple[int, float]]:
    """(prompt rows, seconds) of steps beside so many answers."""
    found = []
    for _ in range(steps):
        rows = budget.rows(decode_rows)
        seconds = machine(decode_rows, rows)
        budget.ran(decode_rows, rows, seconds)
        found.append((rows, seconds))
    return found


@pytest.mark.parametrize("decode_rows", [1, 3, 4, 8, 15])
def test_a_mixed_step_takes_its_share_of_time_in_whole_tiles(decode_rows: int) -> None:
    alone = machine(decode_rows, 0)
    found = settled(StepBudget(256), decode_rows)
    assert all((decode_rows + rows) % TILE == 0 for rows, _ in found)
    assert all(seconds <= 1.25 * SHARE * alone for _, seconds in found)
    late = [seconds for rows, seconds in found[-40:] if rows > 3]
    assert sum(late) / len(late) > 0.85 * SHARE * alone


def test_many_prompts_get_more_and_no_more_than_a_bound() -> None:
    late = {}
    for prompts in (1, 4, 100):
        budget = StepBudget(256)
        for _ in range(200):
            rows = budget.rows(4, prompts)
            late[prompts] = machine(4, rows)
            budget.ran(4, rows, late[prompts])
    assert late[1] < late[4] < late[100] <= 1.1 * SHARE * MOST * machine(4, 0)


def test_a_stated_time_is_kept() -> None:
    found = settled(StepBudget(256, step_s=0.008), 4)
    assert all(seconds <= 0.0095 for _, seconds in found[30:])
    assert max(seconds for _, seconds in found[30:]) > 0.007


def test_a_step_without_prompts_is_measured_now_and_then() -> None:
    found = settled(StepBudget(256), 4, 300)
    assert 3 <= sum(rows == 0 for rows, _ in found) <= 10


def test_prompts_alone_take_no_longer_than_somebody_new_may_wait() -> None:
    budget = StepBudget(256)
    assert budget.rows(0) == 256
    budget.ran(0, 256, 256 * 0.01)  # a slow machine: 100 tok/s
    assert budget.rows(0) == int(ALONE_S / 0.01) // TILE * TILE
    budget.ran(0, 48, 48 * 10.0)  # however slow, a prompt goes on
    assert budget.rows(0) == 32


def test_it_never_gives_more_rows_than_a_step_has() -> None:
    assert settled(StepBudget(32), 30)[-1][0] <= 2
    assert StepBudget(32).rows(32) == 0
