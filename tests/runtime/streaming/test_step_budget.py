"""Rows of prompts in steps that read weights from the disk, on a machine with a disk of one rate."""

import pytest

from rockledge.runtime.step_budget import ALONE_S, SHARE, TILE
from rockledge.runtime.streaming.step_budget import StreamedStepBudget

MOST = 1024


class Machine:
    """A step takes what the disk or computing its rows does; what it waited is counted as the core does."""

    def __init__(self, pass_s: float, row_s: float, step_s: float | None = None) -> None:
        self.pass_s, self.row_s = pass_s, row_s
        self.waited = 0.0
        self.budget = StreamedStepBudget(MOST, step_s, lambda: self.waited)

    def step(self, decode_rows: int, *, prompts: bool = True) -> tuple[int, float]:
        """Rows of prompts and seconds of the next step."""
        rows = self.budget.rows(decode_rows) if prompts else 0
        compute = self.row_s * (decode_rows + rows)
        seconds = max(self.pass_s, compute)
        self.waited += max(0.0, self.pass_s - compute)
        self.budget.ran(decode_rows, rows, seconds)
        return rows, seconds


@pytest.mark.parametrize("decode_rows", [1, 4, 9])
def test_what_the_disk_leaves_time_for_is_given_at_once(decode_rows: int) -> None:
    """A pass takes 2 s, in which 200 rows are computed: the second step beside answers has them."""
    machine = Machine(2.0, 0.010)
    machine.step(decode_rows)
    for _ in range(20):
        rows, seconds = machine.step(decode_rows)
        assert decode_rows + rows >= 200
        assert seconds <= SHARE * 2.0 + TILE * 0.010


def test_a_prompt_alone_has_the_largest_steps_until_they_take_long() -> None:
    slow_disk = Machine(4.0, 0.001)
    assert [slow_disk.step(0)[0] for _ in range(5)] == [MOST] * 5
    fast_disk = Machine(0.01, 0.010)
    fast_disk.step(0)
    for _ in range(5):
        assert fast_disk.step(0)[1] <= ALONE_S


def test_a_step_that_may_take_so_long_never_has_fewer_rows_than_cost_nothing() -> None:
    machine = Machine(1.0, 0.005, step_s=0.1)
    machine.step(2)
    for _ in range(10):
        rows, seconds = machine.step(2)
        assert 200 - TILE <= rows + 2 <= 200
        assert seconds == 1.0


def test_a_machine_that_computes_slower_than_the_disk_reads_keeps_the_pace_of_answers() -> None:
    """No step waits for the disk: what a step without prompts takes is measured, and prompts add a share."""
    machine = Machine(0.0, 0.010)
    for _ in range(3):
        machine.step(20, prompts=False)
    machine.step(20)
    for _ in range(10):
        rows, seconds = machine.step(20)
        assert rows > 0
        assert seconds <= SHARE * 0.2


@pytest.mark.parametrize("decode_rows", [1, 20, MOST - 2])
def test_prompts_go_on_however_slow_it_is(decode_rows: int) -> None:
    machine = Machine(0.001, 1.0, step_s=0.1)
    machine.step(1)
    for _ in range(5):
        assert machine.step(decode_rows)[0] == min(TILE, MOST - decode_rows)


def test_a_governor_that_asks_for_less_gets_the_rows_that_cost_nothing() -> None:
    machine = Machine(2.0, 0.010)
    machine.step(1)
    machine.budget.part = 0.0
    rows, seconds = machine.step(1)
    assert seconds == 2.0
    assert rows + 1 >= 200 - TILE
