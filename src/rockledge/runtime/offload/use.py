"""An open NPU that reads prompts: its buffers and programs, the program that uses it, and how it fares."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from rockledge.board.boards import Board
from rockledge.errors import BudgetError, NpuError
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.npu_launch import prove
from rockledge.runtime.offload import native_plan
from rockledge.runtime.offload.budget import largest_plan
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.native_plan import ROLES, NpuWork
from rockledge.runtime.offload.plan import INSTANCES, Place, PrefillPlan
from rockledge.runtime.offload.status import NpuStatus, State

PROBE_MS: Final = 500
JOB_MS: Final = 2000
"""What a job may take: some hundred times what the slowest block is modelled to."""
_ABSENT: Final = "there is no NPU here"

log = logging.getLogger(__name__)


class NpuUnusedError(NpuError):
    """Why prompts are read on the CPU; `state` says which kind of reason it is."""

    def __init__(self, reason: str, state: State) -> None:
        super().__init__(reason)
        self.state: State = state


class NpuUse:
    """An NPU with everything on it that `plan` needs. Programs use it through `offload`, until `close`."""

    def __init__(self, device: NpuDevice, plan: PrefillPlan) -> None:
        """Allocates all buffers and loads all programs. Raises NpuError."""
        self.plan = plan
        self.offload = _load(device, plan)
        self.device = device
        self._work: Callable[[], NpuWork] | None = None
        self._last = NpuStatus("ready")
        self._failure_logged = False
        self._lock = threading.Lock()

    def watch(self, work: Callable[[], NpuWork]) -> None:
        """`work` tells what the NPU has done; it is asked for as long as this is open."""
        self._work = work
        self._last = self.status()

    def status(self) -> NpuStatus:
        """How it fares; also while a step runs, and behind `close` as it was then."""
        with self._lock:
            return self._last if self._work is None else self._status(self._work())

    def _status(self, work: NpuWork) -> NpuStatus:
        about = self.device.describe()
        return NpuStatus(
            state="ready" if work.stopped is None else "failed",
            reason=work.stopped,
            driver=about.driver,
            version=".".join(map(str, about.version)),
            node=about.node,
            cores=about.cores,
            from_rows=self.plan.from_rows,
            step_rows=self.plan.steps[-1],
            buffer_bytes=about.allocated_bytes,
            steps=work.steps,
            rows=work.rows,
            blocks=work.blocks,
            unpacked_bytes=work.unpacked_bytes,
            jobs=about.submits,
            waited_seconds=work.waited_ns / 1e9,
            faults=about.faults,
            resets=about.resets,
            fallbacks=work.fallbacks,
        )

    def describe(self) -> str:
        """A line for the log."""
        now, plan = self.status(), self.plan
        return (
            f"NPU: {now.driver} {now.version} at {now.node}, {now.cores} cores; prompts go there in steps of "
            f"{plan.from_rows} to {plan.steps[-1]} tokens; {plan.pinned} of {len(plan.block_slot)} blocks of "
            f"weights stay unpacked in {now.buffer_bytes / 1e6:.1f} MB"
        )

    def log_failure(self) -> None:
        """Logs, once, that the device was given up."""
        with self._lock:
            if self._failure_logged or self._work is None or (reason := self._work().stopped) is None:
                return
            self._failure_logged = True
        log.warning("%s; prompts are read on the CPU from now on", reason)

    def close(self) -> None:
        """Closes the device, which stays until the programs that use it are closed. Twice is allowed."""
        with self._lock:
            if self._work is not None:
                self._last = self._status(self._work())
                self._work = None
            self.device.close()


def open_npu(
    linears: Sequence[Linear],
    *,
    board: Board,
    context: int,
    budget: Callable[[int], int],
    from_rows: int | None = None,
) -> NpuUse:
    """The NPU of this machine, proven and loaded for `linears`.

    `budget`: bytes its buffers may take beside steps of that many tokens. `from_rows`: steps of so many
    tokens go to it; None for those that are modelled to be faster there. Raises NpuUnusedError.
    """
    try:
        device = NpuDevice()
    except NpuError as error:
        state: State = "none" if str(error).startswith(_ABSENT) else "unusable"
        raise NpuUnusedError(str(error), state) from None
    try:
        about = device.describe()
        _prove(device, about.node)
        plan = largest_plan(
            linears, lanes=about.cores, spaces=about.spaces, board=board, context=context, budget=budget
        )
        if from_rows is not None:
            plan = replace(plan, from_rows=from_rows)
        if plan.from_rows > plan.steps[-1]:
            raise NpuUnusedError("the CPU is modelled to be faster for every step of this model", "slower")
        return NpuUse(device, plan)
    except BaseException as error:
        device.close()
        if isinstance(error, (BudgetError, NpuError)) and not isinstance(error, NpuUnusedError):
            raise NpuUnusedError(str(error), "unusable") from None
        raise


def _prove(device: NpuDevice, node: str) -> None:
    try:
        prove(device, PROBE_MS)
    except NpuError as error:
        raise NpuError(
            f"{error}; if another program keeps it busy (`sudo fuser -v {node}` names it), stop that one"
        ) from None


def _load(device: NpuDevice, plan: PrefillPlan) -> native_plan.OffloadPlan:
    """The plan over real buffers and programs."""
    buffers = [device.allocate(buffer.bytes, buffer.space) for buffer in plan.buffers]

    def at(place: Place) -> native_plan.BufferPlace:
        return native_plan.BufferPlace(buffers[place.buffer], place.offset)

    def each(places: Sequence[Place]) -> tuple[native_plan.BufferPlace, ...]:
        return tuple(map(at, places))

    shapes = []
    for number, shape in enumerate(plan.shapes):
        sizes = []
        for step, size in enumerate(shape.sizes):
            first, second = (
                tuple(
                    device.load(size.program, buffers[plan.programs[number, step, instance, lane]], 0, ROLES)
                    for lane in range(plan.lanes)
                )
                for instance in range(INSTANCES)
            )
            sizes.append(native_plan.StepSize(size.rows, size.sums, size.tile_starts, (first, second)))
        shapes.append(
            native_plan.OffloadShape(
                shape.inputs, shape.planes, shape.lane_columns, shape.part_starts, tuple(sizes)
            )
        )
    first_output, second_output = map(each, plan.outputs)
    return native_plan.OffloadPlan(
        lanes=plan.lanes,
        from_rows=plan.from_rows,
        timeout_ms=JOB_MS,
        shapes=tuple(shapes),
        linears=tuple(native_plan.OffloadLinear(one.op, one.shape, one.blocks) for one in plan.linears),
        block_slot=plan.block_slot,
        slots=tuple(map(each, plan.slots)),
        inputs=each(plan.inputs),
        outputs=(first_output, second_output),
        scratch=each(plan.scratch),
    )
