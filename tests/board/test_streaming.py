"""The formula for weights that are read from the disk in every step."""

import pytest

from rockledge.board.streaming import (
    PIECE_BYTES,
    ring_bytes,
    room_for_weights,
    streamed_bytes,
    streamed_step,
)

GB = 10**9


def test_what_the_budget_does_not_hold_is_read_in_every_step() -> None:
    resident = room_for_weights(3 * GB, GB, PIECE_BYTES)
    assert resident == 2 * GB - ring_bytes(PIECE_BYTES)
    assert streamed_bytes(5 * GB, resident) == 3 * GB + ring_bytes(PIECE_BYTES)
    assert streamed_bytes(GB, resident) == 0


def test_a_budget_that_cache_and_arena_take_whole_leaves_nothing_resident() -> None:
    assert room_for_weights(GB, 2 * GB) == 0
    assert streamed_bytes(5 * GB, 0) == 5 * GB


@pytest.mark.parametrize(("rate", "ms"), [(GB, 2000.0), (10 * GB, 300.0)])
def test_the_slower_of_disk_and_compute_is_what_a_step_takes(rate: float, ms: float) -> None:
    step = streamed_step(2 * GB, 300.0, rate)
    assert step.ms == pytest.approx(ms)
    assert step.bytes == 2 * GB
