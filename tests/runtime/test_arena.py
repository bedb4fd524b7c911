"""The arena plan: buffers that share a slot never hold a needed value at the same time."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.runtime.arena import plan_arena


@dataclass(frozen=True)
class Step:
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Step], list[int]]:
    """Random operations over up to 8 buffers that read only what has been written."""
    count = draw(st.integers(1, 8))
    sizes = draw(st.lists(st.integers(1, 100), min_size=count, max_size=count))
    steps: list[Step] = []
    written: set[int] = set()
    for _ in range(draw(st.integers(1, 20))):
        inputs = draw(st.sets(st.sampled_from(sorted(written)), max_size=3)) if written else set()
        outputs = draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2))
        steps.append(Step(tuple(inputs), tuple(outputs)))
        written |= outputs
    return steps, sizes


@given(programs())
def test_sharing_changes_no_value_that_is_read(program: tuple[list[Step], list[int]]) -> None:
    """Executed symbolically with and without shared memory, every read sees the value of the same write."""
    steps, sizes = program
    plan = plan_arena(steps, sizes)
    for b, size in enumerate(sizes):
        assert plan.row_bytes[plan.slots[b]] >= size
    alone: dict[int, int] = {}
    shared: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for b in step.inputs:
            assert shared[plan.slots[b]] == (b, alone[b])
        # Outputs are written while inputs are still read: they must not lie on top of one another.
        touched = set(step.inputs) | set(step.outputs)
        assert len({plan.slots[b] for b in touched}) == len(touched)
        for b in step.outputs:
            alone[b] = number
            shared[plan.slots[b]] = (b, number)


def test_a_chain_needs_two_slots() -> None:
    chain = [Step((), (0,))] + [Step((b,), (b + 1,)) for b in range(6)]
    plan = plan_arena(chain, [10] * 7)
    assert plan.row_bytes == (10, 10)


def test_columns_written_one_after_another_stay() -> None:
    """Two operations fill columns of buffer 1 before it is read; buffer 2 lives between them."""
    steps = [Step((), (0,)), Step((0,), (1,)), Step((0,), (2,)), Step((2,), (1,)), Step((1,), (3,))]
    plan = plan_arena(steps, [4, 8, 4, 4])
    assert plan.slots[1] != plan.slots[2]


def test_reading_the_unwritten_is_refused() -> None:
    with pytest.raises(ValueError, match="reads buffer 0"):
        plan_arena([Step((0,), (1,))], [4, 4])
