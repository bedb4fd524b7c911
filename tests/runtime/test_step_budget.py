"""Rows of prompts beside answers, on a machine whose steps take what a line says."""

import random

import pytest

from rockledge.runtime import step_budget
from rockledge.runtime.step_budget import MOST, SHARE, TILE, StepBudget

ALONE_S, ROW_S = 0.020, 0.0015  # a step without prompts, and a row more than its whole tiles
IDEAL = (SHARE - 1) * ALONE_S / ROW_S


def seconds(rows: int, decode_rows: int) -> float:
    """Whole tiles are run."""
    tiles, alone = -(-rows // TILE), -(-decode_rows // TILE)
    return ALONE_S + ROW_S * TILE * (tiles - alone)


def prompt_rows(budget: StepBudget, decode_rows: int, steps: int, hiccups: float = 0.0) -> list[int]:
    chance = random.Random(1)
    found = []
    for _ in range(steps):
        rows = budget.rows(decode_rows)
        slower = 3 if chance.random() < hiccups else 1
        budget.ran(decode_rows, rows, slower * seconds(decode_rows + rows, decode_rows))
        found.append(rows)
    return found


@pytest.mark.parametrize("hiccups", [0.0, 0.05])
@pytest.mark.parametrize("decode_rows", [1, 3, 4, 7, 8, 16, 31])
def test_prompts_get_their_share_of_a_step(decode_rows: int, hiccups: float) -> None:
    """Every other step may take what its rows say, those without prompts too."""
    rows = prompt_rows(StepBudget(256), decode_rows, 400, hiccups)[100:]
    assert IDEAL - TILE <= sum(rows) / len(rows) <= 2 * IDEAL


@pytest.mark.parametrize("decode_rows", [1, 4, 5, 6, 7, 8, 15])
def test_rows_recover_from_a_time_when_all_was_slow(decode_rows: int) -> None:
    budget = StepBudget(256)
    prompt_rows(budget, decode_rows, 50)
    for _ in range(12):
        budget.ran(decode_rows, budget.rows(decode_rows), 10.0)
    assert budget.rows(decode_rows) <= 2 * TILE
    assert max(prompt_rows(budget, decode_rows, 200)[100:]) >= IDEAL - TILE


def test_a_time_that_cannot_be_kept_still_lets_prompts_on() -> None:
    budget = StepBudget(256, step_s=1e-6)
    assert all(rows > 0 for rows in prompt_rows(budget, 7, 300))
    assert sum(prompt_rows(budget, 8, 300)) > 290 * TILE


def test_a_few_rows_are_no_reason_for_more() -> None:
    """Ends of prompts say that few rows are fast."""
    budget = StepBudget(256)
    prompt_rows(budget, 4, 200)
    before = budget.rows(4)
    for _ in range(60):
        budget.ran(4, TILE, seconds(4 + TILE, 4))
    assert budget.rows(4) <= before


def test_many_prompts_get_more_and_no_more_than_a_bound() -> None:
    late = {}
    for prompts in (1, 4, 100):
        budget = StepBudget(256)
        for _ in range(200):
            rows = budget.rows(4, prompts)
            late[prompts] = seconds(4 + rows, 4)
            budget.ran(4, rows, late[prompts])
    assert late[1] < late[4] < late[100] <= 1.2 * SHARE * MOST * ALONE_S


def test_a_stated_time_is_kept() -> None:
    rows = prompt_rows(StepBudget(256, step_s=0.05), 4, 200)
    taken = [seconds(4 + count, 4) for count in rows[50:]]
    assert 0.04 < max(taken) <= 0.055


def test_a_step_without_prompts_is_measured_now_and_then() -> None:
    found = prompt_rows(StepBudget(256), 4, 300)
    assert 3 <= sum(rows == 0 for rows in found) <= 10


def test_prompts_alone_take_no_longer_than_somebody_new_may_wait() -> None:
    budget = StepBudget(256)
    assert budget.rows(0) == 256
    budget.ran(0, 256, 256 * 0.01)  # a slow machine: 100 tok/s
    assert budget.rows(0) == int(step_budget.ALONE_S / 0.01) // TILE * TILE
    budget.ran(0, 48, 48 * 10.0)  # however slow, a prompt goes on
    assert budget.rows(0) == 32


def test_it_never_gives_more_rows_than_a_step_has() -> None:
    assert max(prompt_rows(StepBudget(32), 30, 50)) <= 2
    assert StepBudget(32).rows(32) == 0
