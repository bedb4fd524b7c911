"""Every program of a plan run once with random numbers, on all cores: what is right, and how long it takes.

A device is used only for what was tried and found right. Each shape and step size is a job on every lane
with random int8 inputs and weights. Of its sums the CPU computes again: all of a small one; of a large one
the last row and the last columns of every tile, and a spread of others. What is wrong is left out of the
plan, and what was measured takes the place of the modelled seconds.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.board.boards import Board
from rockledge.errors import NpuError
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT
from rockledge.npu.programs.tiling import Product
from rockledge.runtime.npu_device import TO_DEVICE, Binding, NpuDevice
from rockledge.runtime.offload.lane_sums import Int32, LaneSums
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.load import OnDevice
from rockledge.runtime.offload.native_plan import BufferPlace
from rockledge.runtime.offload.plan import PlacedLinear, PrefillPlan, timed
from rockledge.runtime.offload.shapes import Shape, Size

WHOLE: Final = 1 << 24
"""Products of a lane up to which all of its sums are compared."""
SPREAD: Final = 32
"""Rows, and columns, of a large lane whose sums are compared in addition to those of the edges."""
RATE_BYTES: Final = 8 << 20
"""Synced bytes from which on their measured rate replaces the board's."""
_PATTERN: Final = 1_000_003
"""Random bytes that fill all operands: a prime, so that no tile begins like another."""


@dataclass(frozen=True)
class Trial:
    """A job of shape number `shape` for steps of `rows` tokens: `seconds` it took, and what was `wrong`."""

    shape: int
    rows: int
    seconds: float
    wrong: str | None


@dataclass(frozen=True)
class Cleaned:
    """Bytes that one thread synced to the device, and the seconds that took."""

    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cleaned") -> "Cleaned":
        return Cleaned(self.bytes + other.bytes, self.seconds + other.seconds)

    def on(self, board: Board) -> Board:
        """The board with the measured rate, where enough bytes were synced for one."""
        if self.bytes < RATE_BYTES or not self.seconds:
            return board
        rate = {"cpu_cache_sync_bandwidth": self.bytes / self.seconds}
        return board.measured(rate, "weights handed to the device when it was tried")


@dataclass(frozen=True)
class Trials:
    """All of a plan's, and the `seconds` that they took with all that belongs to them."""

    jobs: tuple[Trial, ...]
    cleaned: "Cleaned"
    seconds: float

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is wrong, a line each."""
        return tuple(job.wrong for job in self.jobs if job.wrong is not None)


class HungError(NpuError):
    """The device was given up in a trial of the shape that the linears at these operations have."""

    def __init__(self, reason: str, ops: frozenset[int]) -> None:
        super().__init__(reason)
        self.ops = ops


def try_programs(
    device: NpuDevice, plan: PrefillPlan, there: OnDevice, board: Board, timeout_ms: int
) -> Trials:
    """Runs and compares all programs. Raises HungError when the device is given up over a job."""
    began, cleaned, jobs = time.monotonic(), Cleaned(), list[Trial]()
    pattern = np.random.default_rng(0).integers(0, 256, _PATTERN).astype(np.uint8)
    for number, shape in enumerate(plan.shapes):
        one = _Shape(device, plan, there, number, pattern)
        jobs += one.trials(shape, board, timeout_ms)
        cleaned += one.cleaned
    return Trials(tuple(jobs), cleaned, time.monotonic() - began)


class _Shape:
    """One shape's operands on the device: weights in a slot that has room for them."""

    def __init__(
        self,
        device: NpuDevice,
        plan: PrefillPlan,
        there: OnDevice,
        number: int,
        pattern: NDArray[np.uint8],
    ) -> None:
        self._device, self._there, self._number = device, there, number
        self._lanes = plan.lanes
        mine = [one for one in plan.linears if one.shape == number]
        self._ops = frozenset(one.op for one in mine)
        slot = plan.block_slot[mine[0].first_block]
        self._places = {
            INPUT: tuple(map(there.at, plan.inputs)),
            WEIGHT: tuple(map(there.at, plan.slots[slot])),
            OUTPUT: tuple(map(there.at, plan.outputs[0])),
        }
        self._inputs = [there.at(place) for place in dict.fromkeys(plan.inputs)]
        self._pattern = pattern
        self.cleaned = Cleaned()

    def trials(self, shape: Shape, board: Board, timeout_ms: int) -> Iterator[Trial]:
        """One for each step size."""
        for lane, place in enumerate(self._places[WEIGHT]):
            self._fill(place, shape.lane_bytes, lane + 1)
        for size in shape.sizes:
            for place in self._inputs:
                self._fill(place, size.bytes(INPUT), 0)
            try:
                seconds = self._run(shape, size, board, timeout_ms)
            except NpuError as error:
                raise HungError(str(error), self._ops) from None
            wrong = next(filter(None, (self._wrong(shape, size, lane) for lane in range(self._lanes))), None)
            yield Trial(self._number, size.rows, seconds, wrong)

    def _fill(self, place: BufferPlace, size: int, turn: int) -> None:
        """Random bytes, others for each `turn`."""
        to = place.buffer.data[place.offset : place.offset + size]
        pattern = np.roll(self._pattern, 7919 * turn)
        for start in range(0, size, _PATTERN):
            part = to[start : start + _PATTERN]
            part[:] = pattern[: part.size]
        before, began = self._device.describe().cleaned_bytes, time.monotonic()
        self._device.sync(place.buffer, TO_DEVICE, place.offset, size)
        self.cleaned += Cleaned(self._device.describe().cleaned_bytes - before, time.monotonic() - began)

    def _run(self, shape: Shape, size: Size, board: Board, timeout_ms: int) -> float:
        """The seconds of the job: measured, or by the driver's clock plus the cost of starting a job."""
        programs = self._there.lanes(self._number, size.rows, 0, self._lanes)
        needed = {role: shape.lane_bytes if role == WEIGHT else size.bytes(role) for role in self._places}
        for lane, program in enumerate(programs):
            bindings = {
                role: Binding(places[lane].buffer, role == OUTPUT, 0, places[lane].offset, needed[role])
                for role, places in self._places.items()
            }
            self._device.bind(program, bindings)
        self._device.submit(programs, timeout_ms)
        self._device.wait()
        about = self._device.describe()
        if about.device_seconds is None:
            return about.job_seconds
        return about.device_seconds + board.value("npu_submit_seconds")

    def _wrong(self, shape: Shape, size: Size, lane: int) -> str | None:
        """What is wrong with the sums of a lane."""

        def bytes_of(role: str) -> NDArray[np.uint8]:
            place = self._places[role][lane]
            return place.buffer.data[place.offset :]

        sums = LaneSums(
            bytes_of(INPUT),
            bytes_of(WEIGHT),
            bytes_of(OUTPUT),
            np.array(shape.part_starts, np.int32),
            np.array(size.tile_starts, np.int32),
            shape.lane_columns,
            size.sums,
        )
        compared = wrong = 0
        first = (0, 0)
        for vectors, columns in compared_sums(shape, size):
            found, vector, column = sums.wrong(vectors, columns)
            compared += vectors.size * columns.size
            first = (vector, column) if found and not wrong else first
            wrong += found
        if not wrong:
            return None
        return (
            f"steps of {size.rows} tokens of layers with {shape.inputs} inputs, {shape.lane_columns} columns "
            f"a core: {wrong} of {compared} sums are wrong on core {lane}, the first at row {first[0]}, "
            f"column {first[1]}"
        )


def compared_sums(shape: Shape, size: Size) -> Iterator[tuple[Int32, Int32]]:
    """Vectors and columns of a lane whose sums are compared, each with each."""
    vectors = np.arange(size.tile_starts[-1], dtype=np.int32)
    columns = np.arange(shape.lane_columns, dtype=np.int32)
    if vectors.size * columns.size * shape.inputs <= WHOLE:
        yield vectors, columns
        return
    random = np.random.default_rng(size.rows)
    tasks = size.matmul.tiling.tasks()
    last_columns = sorted({task.columns.stop - 1 for task in tasks if isinstance(task, Product)})
    yield np.array([end - 1 for end in size.tile_starts[1:]], np.int32), columns
    yield vectors, np.array(last_columns, np.int32)
    yield random.choice(vectors, SPREAD), random.choice(columns, SPREAD)


def plan_from_trials(
    plan: PrefillPlan, linears: Sequence[Linear], trials: Trials, board: Board
) -> PrefillPlan:
    """The plan without what was wrong, and with measured seconds in place of modelled ones.

    A shape that is wrong at every step size stays on the CPU. Of the others only step sizes are used at which
    they are all right; where there are none, whatever was wrong at any size stays on the CPU. Raises
    NpuError when nothing is left.
    """
    bad = {(job.shape, job.rows) for job in trials.jobs if job.wrong is not None}
    numbers = range(len(plan.shapes))
    dropped = {shape for shape in numbers if all((shape, rows) in bad for rows in plan.steps)}
    steps = [rows for rows in plan.steps if not any((s, rows) in bad for s in numbers if s not in dropped)]
    if not steps:
        dropped, steps = {shape for shape, _ in bad}, list(plan.steps)
    left = [one for one in plan.linears if one.shape not in dropped]
    if not left:
        raise NpuError(f"none of this model's programs computes correctly on the NPU: {trials.wrong[0]}")
    seconds = {(job.shape, job.rows): job.seconds for job in trials.jobs}
    shapes = tuple(
        replace(
            shape,
            sizes=tuple(s.with_seconds(seconds[number, s.rows]) for s in shape.sizes if s.rows in steps),
        )
        for number, shape in enumerate(plan.shapes)
    )
    kept = replace(plan, steps=tuple(steps), shapes=shapes)
    ops = {one.op for one in left}
    of_ops = [linear for linear in linears if linear.op in ops]
    return timed(_of(kept, left), of_ops, trials.cleaned.on(board))


def _of(plan: PrefillPlan, linears: Sequence[PlacedLinear]) -> PrefillPlan:
    """The plan of some of its linears: blocks and slots are numbered anew."""
    blocks = [plan.block_slot[one.first_block + b] for one in linears for b in range(one.blocks)]
    slots = sorted(set(blocks))
    placed, first = [], 0
    for one in linears:
        placed.append(replace(one, first_block=first))
        first += one.blocks
    return replace(
        plan,
        linears=tuple(placed),
        block_slot=tuple(map(slots.index, blocks)),
        pinned=sum(slot < plan.pinned for slot in slots),
        slots=tuple(plan.slots[slot] for slot in slots),
    )
