"""What any plan keeps, from toy models to 8B: everything is covered once, lies inside, and never collides."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.offload.linear_lists import linear, linear_lists, linears_like

from rockledge.board.boards import find_board
from rockledge.errors import BudgetError, NpuError
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.npu.programs.tile_program import INPUT, OUTPUT
from rockledge.npu.programs.tiling import Product, Reuse
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import Place, PrefillPlan, plan_prefill
from rockledge.runtime.offload.slots import RING
from rockledge_npu_lab.verify.emulated import EmulatedNpu

BOARD = find_board("rk3588-8gb")
AMPLE = int(3.5 * 2**30)
DEVICES = ((3, 1), (3, 3), (1, 1), (2, 1))


def made(
    linears: Sequence[Linear], budget: int = AMPLE, device: tuple[int, int] = (3, 1), steps: int = 4
) -> PrefillPlan:
    lanes, spaces = device
    return plan_prefill(
        linears, lanes=lanes, spaces=spaces, steps=STEP_ROWS[:steps], board=BOARD, budget=budget
    )


def pieces(plan: PrefillPlan) -> Iterator[tuple[Place, int, int]]:
    """Every piece of memory that the plan uses: place, bytes, lane."""
    largest: dict[int, int] = {}
    for one in plan.linears:
        for block in range(one.first_block, one.first_block + one.blocks):
            slot = plan.block_slot[block]
            largest[slot] = max(largest.get(slot, 0), plan.shapes[one.shape].lane_bytes)
    for slot, places in enumerate(plan.slots):
        yield from ((place, largest[slot], lane) for lane, place in enumerate(places))
    for role, sets in ((INPUT, [plan.inputs]), (OUTPUT, plan.outputs)):
        size = max(shape.most(role) for shape in plan.shapes)
        for places in sets:
            for lane, place in enumerate(dict.fromkeys(places) if role == INPUT else places):
                yield place, size, lane
    for (shape, rows, _, lane), buffer in plan.programs.items():
        size = next(size for size in plan.shapes[shape].sizes if size.rows == rows)
        yield Place(buffer, 0), size.program.size_bytes, lane


def check(plan: PrefillPlan, linears: Sequence[Linear], budget: int) -> None:
    # Columns: blocks follow each other through all linears, and reach the last column with the last block.
    assert [one.op for one in plan.linears] == [one.op for one in linears]
    block = 0
    for one, placed in zip(linears, plan.linears, strict=True):
        shape = plan.shapes[placed.shape]
        assert (shape.inputs, shape.planes) == (one.inputs, one.planes)
        assert shape.lane_columns % 32 == 0
        assert placed.first_block == block
        block += placed.blocks
        width = plan.lanes * shape.lane_columns
        assert (placed.blocks - 1) * width < one.outputs <= placed.blocks * width
    assert len(plan.block_slot) == block
    # Inputs: the parts and tiles of every step size partition inputs and vectors.
    for shape in plan.shapes:
        starts = shape.part_starts
        assert (starts[0], starts[-1]) == (0, shape.inputs)
        assert all(a < b and a % 32 == 0 for a, b in pairwise(starts))
        assert tuple(size.rows for size in shape.sizes) == plan.steps
        for size in shape.sizes:
            tiles = size.tile_starts
            assert (tiles[0], tiles[-1]) == (0, size.rows * shape.planes)
            assert all(a < b and a % 4 == 0 for a, b in pairwise(tiles))
            assert size.matmul.tiling.input_parts == shape.sizes[0].matmul.tiling.input_parts
            assert size.bytes(OUTPUT) == 4 * size.sums * tiles[-1] * shape.lane_columns
            assert size.bytes(INPUT) == tiles[-1] * shape.inputs
            assert size.sums in (1, len(starts) - 1)
            # Where every program is a kick of its own, none counts on what another left or wrote.
            tasks = list(size.matmul.tiling.tasks())
            assert plan.spaces == 1 or all(
                isinstance(task, Product) and task.reuse is Reuse.NONE for task in tasks
            )
    # Memory: within the budget, every piece inside a buffer of its lane's space, none over another.
    assert plan.bytes <= budget
    used: dict[int, list[tuple[int, int]]] = {}
    for place, size, lane in pieces(plan):
        assert place.offset % 64 == 0
        assert 0 <= place.offset <= plan.buffers[place.buffer].bytes - size
        assert plan.buffers[place.buffer].space == (lane if plan.spaces > 1 else 0)
        used.setdefault(place.buffer, []).append((place.offset, place.offset + size))
    assert sorted(used) == list(range(len(plan.buffers)))
    for ranges in used.values():
        ranges.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
    # Slots: a pinned one has one block; through the ring, a block and those it is ahead of never meet.
    through = [slot for slot in plan.block_slot if slot >= plan.pinned]
    pinned = [slot for slot in plan.block_slot if slot < plan.pinned]
    assert sorted(pinned) == list(range(plan.pinned))
    for first in range(len(through)):
        window = through[first : first + RING]
        assert len(set(window)) == len(window)
    assert 1 <= plan.from_rows <= plan.steps[-1] + 1


@pytest.mark.parametrize("name", ["toy", "135m", "1b", "3b", "8b"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_named_shapes(name: str, device: tuple[int, int]) -> None:
    for budget, planes in ((AMPLE, 1), (AMPLE // 3, 2), (300 << 20, 1)):
        linears = linears_like(name, planes)
        check(made(linears, budget, device), linears, budget)


@settings(max_examples=40)
@given(linear_lists(), st.sampled_from(DEVICES), st.integers(1, 4), st.integers(0, 40 << 20))
def test_any_linears_in_any_memory(
    linears: list[Linear], device: tuple[int, int], steps: int, budget: int
) -> None:
    try:
        plan = made(linears, budget, device, steps)
    except BudgetError:
        budget = AMPLE
        plan = made(linears, budget, device, steps)
    check(plan, linears, budget)


def test_what_fits_is_unpacked_once_and_what_does_not_goes_round() -> None:
    linears = linears_like("135m")
    whole = made(linears)
    assert whole.pinned == len(whole.block_slot) == len(whole.slots)
    tight = made(linears, whole.bytes - (8 << 20))
    assert 0 < tight.pinned < len(tight.block_slot)
    assert len(tight.slots) == tight.pinned + RING
    # Spread evenly: the streamed ones come in no long runs.
    streamed = [slot >= tight.pinned for slot in tight.block_slot]
    longest = max(map(len, "".join("x" if one else " " for one in streamed).split()))
    assert longest <= 2 + sum(streamed) // tight.pinned
    # Whole rounds of the ring: the last block of a step and the first of the next do not meet either.
    assert sum(streamed) % RING == 0


def test_too_little_memory_names_what_there_is() -> None:
    with pytest.raises(BudgetError, match="more than the 1 MB"):
        made(linears_like("8b"), 1_000_000)


def test_a_program_without_linears_is_refused() -> None:
    with pytest.raises(NpuError, match="no linear layer"):
        made([])


def test_mainline_gets_a_buffer_for_each_lane_of_a_slot() -> None:
    """It hands buffers over whole, and makes the CPU wait for the jobs that use them."""
    plan = made(linears_like("toy"), device=(3, 3))
    places = [place for slot in plan.slots for place in slot]
    assert len({place.buffer for place in places}) == len(places)
    shared = made(linears_like("toy"), device=(3, 1))
    assert len({place.buffer for slot in shared.slots for place in slot}) == 1


def test_lanes_are_never_wider_than_a_program() -> None:
    linears = [linear(0, 60_000, 64)]
    for device in DEVICES:
        plan = made(linears, device=device, steps=1)
        check(plan, linears, AMPLE)
        assert all(len(list(size.matmul.tiling.tasks())) == 1 for size in plan.shapes[0].sizes)


@pytest.mark.parametrize("planes", [1, 2])
def test_blocks_and_lanes_multiply_to_the_whole(planes: int) -> None:
    """The planned programs over lanes of a block, on the emulator, against plain arithmetic."""
    random = np.random.default_rng(planes)
    outputs, inputs = 300, 2112
    plan = made([linear(0, outputs, inputs, planes)], budget=4 << 20, steps=1)
    (placed,), (shape,) = plan.linears, plan.shapes
    size = shape.sizes[0]
    a = random.integers(-128, 128, (size.rows * planes, inputs)).astype(np.int8)
    b = np.zeros((placed.blocks * plan.lanes * shape.lane_columns, inputs), np.int8)
    b[:outputs] = random.integers(-128, 128, (outputs, inputs))
    found = []
    for first in range(0, len(b), shape.lane_columns):
        lane = b[first : first + shape.lane_columns]
        launch = size.launch
        weights = size.matmul.weight_bytes(launch, lane)
        assert weights.size == shape.lane_bytes
        output = EmulatedNpu().run(launch, size.matmul.input_bytes(launch, a), weights)
        found.append(size.matmul.sums(launch, output))
    sums = np.concatenate(found, axis=1)[:, :outputs]
    assert (sums == a.astype(np.float64) @ b[:outputs].astype(np.float64).T).all()
