"""The whole plan of prefill on the NPU: shapes, blocks, slots, buffers, threshold. Numbers only, no device.

It is made once an engine is loaded, from the program, what the device has, the board's facts and the memory
there is. Loading (`use.py`) makes buffers and programs of it, the native core runs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from rockledge.board.boards import Board
from rockledge.errors import BudgetError, NpuError
from rockledge.npu.programs.tile_program import INPUT, OUTPUT
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.shapes import Shape, choose_columns, make_shape
from rockledge.runtime.offload.slots import Slots, pages, plan_slots
from rockledge.runtime.offload.threshold import Offloaded, StepTimes

INSTANCES: Final = 2
"""Of every program: the next job is bound to its addresses while one runs."""
LANE_LIMITS: Final = tuple(size << 20 for size in (16, 8, 4, 2, 1))
"""Bytes of weights that a lane of a block may take, the preferred first: wide blocks reload activations less
often, narrow ones leave more memory for blocks that stay."""
SLOT_BUFFER: Final = 64 << 20
"""Slots of one address space share buffers of about that size; drivers serve those best when memory is in
pieces [H]."""


@dataclass(frozen=True)
class Place:
    """Byte `offset` of buffer number `buffer` of the plan."""

    buffer: int
    offset: int


@dataclass(frozen=True)
class PlannedBuffer:
    """Memory to allocate in an address space."""

    space: int
    bytes: int


@dataclass(frozen=True)
class PlacedLinear:
    """Operation `op` of the program, as blocks `first_block` .. `first_block + blocks - 1` of a shape."""

    op: int
    shape: int
    first_block: int
    blocks: int


@dataclass(frozen=True)
class PrefillPlan:
    """The plan. `inputs` have a place for each lane, `outputs` two sets of them, `slots` one for each slot;
    on one address space all lanes read the same input. No program adds sums on the NPU: there is no scratch.

    `programs` is the buffer for the words of a program by (shape, rows, instance, lane). Steps of
    `from_rows` tokens or more go to the NPU, padded to the next of `steps`; `times` says how long they take.
    """

    lanes: int
    spaces: int
    steps: tuple[int, ...]
    times: StepTimes
    from_rows: int
    shapes: tuple[Shape, ...]
    linears: tuple[PlacedLinear, ...]
    block_slot: tuple[int, ...]
    pinned: int
    slots: tuple[tuple[Place, ...], ...]
    inputs: tuple[Place, ...]
    outputs: tuple[tuple[Place, ...], ...]
    programs: Mapping[tuple[int, int, int, int], int]
    buffers: tuple[PlannedBuffer, ...]

    @property
    def bytes(self) -> int:
        """Memory of all buffers."""
        return sum(buffer.bytes for buffer in self.buffers)

    def takes(self, rows: int) -> bool:
        """Whether a step of so many tokens goes to the NPU."""
        return rows >= self.from_rows

    def chunks(self, tokens: int) -> tuple[int, ...]:
        """The steps with the fastest prefill of a prompt of `tokens`, as modelled."""
        return self.times.chunks(tokens, self.from_rows)


@dataclass
class _Buffers:
    """Buffers planned so far; every piece starts on a page."""

    spaces: int
    made: list[PlannedBuffer] = field(default_factory=list)
    _open: tuple[int, int] | None = None

    def own(self, lane: int, size: int) -> int:
        """A buffer of its own for a lane."""
        self.made.append(PlannedBuffer(lane if self.spaces > 1 else 0, pages(size)))
        return len(self.made) - 1

    def shared(self, lane: int, size: int) -> Place:
        """A place in a buffer that lanes of the same space share. Mainline hands buffers over as a whole, and
        makes the CPU wait for jobs that use them: with its several spaces each piece is a buffer."""
        if self.spaces > 1:
            return Place(self.own(lane, size), 0)
        number, end = self._open or (self.own(lane, 0), 0)
        if end and end + size > SLOT_BUFFER:
            number, end = self.own(lane, 0), 0
        self.made[number] = PlannedBuffer(0, end + pages(size))
        self._open = (number, end + pages(size))
        return Place(number, end)


def plan_prefill(
    linears: Sequence[Linear], *, lanes: int, spaces: int, steps: Sequence[int], board: Board, budget: int
) -> PrefillPlan:
    """The plan for a device of `lanes` cores in one address space or one for each.

    `steps`: the step sizes in tokens, ascending. `budget`: bytes that all buffers may take.
    Raises BudgetError when they cannot work with so little, NpuError for a program without linears.
    """
    if not linears:
        raise NpuError("no linear layer of this model can run on the NPU")
    for limit in LANE_LIMITS:
        shapes, shape_of = _shapes(linears, lanes, spaces, steps, board, limit, budget)
        placed = tuple(_placed(linears, shapes, shape_of, lanes))
        passing = _passing(shapes, lanes, spaces, steps, board)
        last = limit == LANE_LIMITS[-1]
        blocks = [shapes[linear.shape].lane_bytes for linear in placed for _ in range(linear.blocks)]
        try:
            slots = plan_slots(blocks, lanes, budget - passing.bytes)
        except BudgetError:
            if last:
                raise BudgetError(
                    f"prefill on the NPU needs more than the {budget / 1e6:.0f} MB of memory left for it"
                ) from None
            continue
        ring = lanes * sum(slots.lane_bytes[slots.pinned :])
        # What only passes through may take half; the rest is for blocks that stay.
        if last or not ring or passing.bytes + ring <= budget // 2:
            break
    return _complete(passing, linears, placed, slots, board)


def _shapes(
    linears: Sequence[Linear],
    lanes: int,
    spaces: int,
    steps: Sequence[int],
    board: Board,
    limit: int,
    budget: int,
) -> tuple[list[Shape], dict[tuple[int, int, int], int]]:
    """The shapes, and which one linears of these (outputs, inputs, planes) have."""
    streamed = sum(linear.outputs * linear.inputs for linear in linears) > budget
    # The driver with a space for each core, mainline's, starts a lane's programs one by one.
    chained = spaces == 1
    shapes: list[Shape] = []
    numbers: dict[tuple[int, int, int], int] = {}
    for linear in linears:
        kind = _kind(linear)
        if kind in numbers:
            continue
        columns = choose_columns(
            linear, steps[-1], board, lanes, most_bytes=limit, streamed=streamed, chained=chained
        )
        shape = make_shape(linear, columns, steps, board, lanes, chained=chained)
        if shape not in shapes:
            shapes.append(shape)
        numbers[kind] = shapes.index(shape)
    return shapes, numbers


def _kind(linear: Linear) -> tuple[int, int, int]:
    return linear.outputs, linear.inputs, linear.planes


def _placed(
    linears: Sequence[Linear],
    shapes: Sequence[Shape],
    shape_of: Mapping[tuple[int, int, int], int],
    lanes: int,
) -> Iterator[PlacedLinear]:
    first = 0
    for linear in linears:
        shape = shape_of[_kind(linear)]
        blocks = shapes[shape].blocks(linear.outputs, lanes)
        yield PlacedLinear(linear.op, shape, first, blocks)
        first += blocks


def _passing(
    shapes: Sequence[Shape], lanes: int, spaces: int, steps: Sequence[int], board: Board
) -> PrefillPlan:
    """A plan with all but linears and slots: activations, sums and programs."""
    buffers = _Buffers(spaces)
    most = {role: max(shape.most(role) for shape in shapes) for role in (INPUT, OUTPUT)}

    def each(role: str) -> tuple[Place, ...]:
        return tuple(Place(buffers.own(lane, most[role]), 0) for lane in range(lanes))

    inputs = each(INPUT) if spaces > 1 else (Place(buffers.own(0, most[INPUT]), 0),) * lanes
    outputs = tuple(each(OUTPUT) for _ in range(2))
    programs = {
        (number, size.rows, instance, lane): buffers.own(lane, size.program.size_bytes)
        for number, shape in enumerate(shapes)
        for size in shape.sizes
        for instance in range(INSTANCES)
        for lane in range(lanes)
    }
    return PrefillPlan(
        lanes=lanes,
        spaces=spaces,
        steps=tuple(steps),
        times=StepTimes((), steps, lanes, spaces, board),
        from_rows=0,
        shapes=tuple(shapes),
        linears=(),
        block_slot=(),
        pinned=0,
        slots=(),
        inputs=inputs,
        outputs=outputs,
        programs=programs,
        buffers=tuple(buffers.made),
    )


def _complete(
    passing: PrefillPlan,
    linears: Sequence[Linear],
    placed: tuple[PlacedLinear, ...],
    slots: Slots,
    board: Board,
) -> PrefillPlan:
    buffers = _Buffers(passing.spaces, list(passing.buffers))
    places = tuple(
        tuple(buffers.shared(lane, size) for lane in range(passing.lanes)) for size in slots.lane_bytes
    )
    plan = replace(
        passing,
        linears=placed,
        block_slot=slots.of_block,
        pinned=slots.pinned,
        slots=places,
        buffers=tuple(buffers.made),
    )
    return timed(plan, linears, board)


def timed(plan: PrefillPlan, linears: Sequence[Linear], board: Board) -> PrefillPlan:
    """The plan of these linears with the times that follow from its shapes, and from where on it pays."""
    offloaded = [
        Offloaded(
            linear,
            plan.shapes[at.shape],
            at.blocks,
            sum(plan.block_slot[b] >= plan.pinned for b in range(at.first_block, at.first_block + at.blocks)),
        )
        for linear, at in zip(linears, plan.linears, strict=True)
    ]
    times = StepTimes(offloaded, plan.steps, plan.lanes, plan.spaces, board)
    return replace(plan, times=times, from_rows=times.threshold())
