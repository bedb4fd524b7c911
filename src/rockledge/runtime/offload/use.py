"""An open NPU for prefill: its buffers and programs, the program that uses it, and its status."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape
from rockledge.board.npu_drivers import board_with_driver
from rockledge.errors import BudgetError, NpuError
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.runtime.npu_cores import named
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.offload.attention_plan import AttentionPlan, plan_attention
from rockledge.runtime.offload.budget import largest_plan
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.load import OnDevice, load, offload_plan
from rockledge.runtime.offload.load_attention import (
    AttentionOnDevice,
    attention_offload,
    load_attention,
    wrong_attention,
)
from rockledge.runtime.offload.native_plan import NpuWork
from rockledge.runtime.offload.opening import OpeningCounts, open_proven
from rockledge.runtime.offload.plan import PrefillPlan
from rockledge.runtime.offload.status import NpuStatus, State
from rockledge.runtime.offload.trial import HungError, Trials, plan_from_trials, try_programs

JOB_MS: Final = 2000
"""What a job may take: some hundred times what the slowest block is modelled to."""
_ABSENT: Final = "there is no NPU here"

log = logging.getLogger(__name__)


class NpuUnusedError(NpuError):
    """Why prefill runs on the CPU; `state` says which kind of reason it is, `counts` what loading met."""

    def __init__(self, reason: str, state: State, counts: OpeningCounts | None = None) -> None:
        super().__init__(reason)
        self.state: State = state
        self.counts = counts or OpeningCounts()


@dataclass(frozen=True)
class Attention:
    """What attention on the NPU is asked for: of heads like `shape`'s, for positions from `start` on."""

    shape: DecoderShape
    start: int


class AttentionHungError(NpuError):
    """The device was given up in a trial of attention."""


class NpuUse:
    """An NPU loaded with everything that `plan` needs. Programs use it through `offload`, until `close`."""

    def __init__(
        self,
        device: NpuDevice,
        plan: PrefillPlan,
        there: OnDevice,
        trials: Trials,
        counts: OpeningCounts,
        attention: AttentionOnDevice | None = None,
    ) -> None:
        """`there`: its buffers and programs on `device`, tried with `trials`. `counts`: what loading met.
        `attention`: those of attention, where that is there too."""
        self.plan = plan
        self.offload = offload_plan(plan, there, JOB_MS)
        self.attention = None if attention is None else attention_offload(attention, JOB_MS)
        self.bytes = plan.bytes + (0 if attention is None else attention.plan.bytes)
        """Memory of all its buffers, and what the core takes for attention."""
        self.device = device
        self._trials = trials
        self._counts = counts
        self._work: Callable[[], NpuWork] | None = None
        self._last = NpuStatus("ready")
        self._failure_logged = False
        self._lock = threading.Lock()

    def watch(self, work: Callable[[], NpuWork]) -> None:
        """`work` returns what the NPU has done; it is called while this is open."""
        self._work = work
        self._last = self.status()

    def status(self) -> NpuStatus:
        """Its state and counters, also while a step runs; after `close`, those at that time."""
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
            jobs=about.submits + self._counts.jobs,
            waited_seconds=work.waited_ns / 1e9,
            busy_seconds=work.busy_ns / 1e9,
            faults=about.faults + self._counts.faults,
            resets=about.resets + self._counts.resets,
            fallbacks=work.fallbacks,
            tried=self._counts.tried,
            tried_wrong=self._counts.tried_wrong,
            tried_seconds=self._trials.seconds,
            attention_from=None if self.attention is None else self.attention.start,
            attention_rows=work.attention_rows,
            attention_jobs=work.attention_jobs,
        )

    def describe(self) -> str:
        """A line for the log."""
        now, plan = self.status(), self.plan
        cores = named(self.device.describe().core_numbers)
        attention = "" if self.attention is None else f"; attention from position {self.attention.start} on"
        return (
            f"NPU: {now.driver} {now.version} at {now.node}, {cores}; prefill runs there in steps of "
            f"{plan.from_rows} to {plan.steps[-1]} tokens; {plan.pinned} of {len(plan.block_slot)} blocks of "
            f"weights stay unpacked in {now.buffer_bytes / 1e6:.1f} MB; {now.tried - now.tried_wrong} of "
            f"{now.tried} programs tried and right in {now.tried_seconds:.2f} s{attention}"
        )

    def log_failure(self) -> None:
        """Logs, once, that the device was given up."""
        with self._lock:
            if self._failure_logged or self._work is None or (reason := self._work().stopped) is None:
                return
            self._failure_logged = True
        log.warning("%s; prefill runs on the CPU from now on", reason)

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
    required: bool = False,
    attention: Attention | None = None,
) -> NpuUse:
    """The NPU of this machine, proven, loaded for `linears`, and with every program tried.

    `budget`: bytes its buffers may take next to steps of that many tokens. `from_rows`: steps of so many
    tokens go to it; None for those that are faster there as measured, or where none is and it is `required`,
    as modelled. `required` also takes a driver that is otherwise left alone (`driver_versions.py`). What is
    wrong stays on the CPU, as does `attention` if it does not fit. Raises NpuUnusedError.
    """
    counts, left = OpeningCounts(), list(linears)
    hung: HungError | None = None
    while True:
        device = _open(required, hung, counts)
        if hung is not None:
            log.warning("%s; %d linear layers of that shape stay on the CPU", hung, len(hung.ops))
        try:
            return _loaded(device, left, board, context, budget, from_rows, required, counts, attention)
        except AttentionHungError as error:
            counts.close(device)
            log.warning("attention stays on the CPU: %s", error)
            attention = None
        except HungError as error:
            counts.close(device)
            hung = error
            left = [linear for linear in left if linear.op not in error.ops]
            if not left:
                raise NpuUnusedError(str(error), "unusable", counts) from None
        except BaseException as error:
            counts.close(device)
            if isinstance(error, NpuUnusedError):
                error.counts = counts
            elif isinstance(error, (BudgetError, NpuError)):
                raise NpuUnusedError(str(error), "unusable", counts) from None
            raise


def _open(required: bool, hung: HungError | None, counts: OpeningCounts) -> NpuDevice:
    """The device, proven; once more if it `hung` before."""
    try:
        return open_proven(counts, required=required)
    except NpuError as error:
        if hung is not None:
            raise NpuUnusedError(str(hung), "unusable", counts) from None
        state: State = "none" if str(error).startswith(_ABSENT) else "unusable"
        raise NpuUnusedError(str(error), state, counts) from None


def _loaded(
    device: NpuDevice,
    linears: Sequence[Linear],
    board: Board,
    context: int,
    budget: Callable[[int], int],
    from_rows: int | None,
    required: bool,
    counts: OpeningCounts,
    attention: Attention | None,
) -> NpuUse:
    about = device.describe()
    board = board_with_driver(board, about.driver, about.clock_hz)

    def planned_attention(steps: Sequence[int]) -> AttentionPlan | None:
        if attention is None:
            return None
        return plan_attention(
            attention.shape, attention.start, lanes=about.cores, spaces=about.spaces, steps=steps, board=board
        )

    def left(rows: int) -> int:
        taken = planned_attention([size for size in STEP_ROWS if size <= rows])
        return budget(rows) - (0 if taken is None else taken.bytes)

    try:
        modelled = largest_plan(
            linears, lanes=about.cores, spaces=about.spaces, board=board, context=context, budget=left
        )
    except BudgetError:
        if attention is None:
            raise
        log.warning("attention stays on the CPU: there is no memory left for it on the NPU")
        return _loaded(device, linears, board, context, budget, from_rows, required, counts, None)
    if (from_rows or modelled.from_rows) > modelled.steps[-1]:
        raise NpuUnusedError("the CPU is modelled to be faster for every step of this model", "slower")
    there = load(device, modelled)
    trials = try_programs(device, modelled, there, board, JOB_MS)
    counts.tried, counts.tried_wrong = len(trials.jobs), len(trials.wrong)
    for wrong in trials.wrong:
        log.warning("the NPU is not used for %s", wrong)
    plan = plan_from_trials(modelled, linears, trials, board)
    slower = plan.from_rows > plan.steps[-1]
    if slower and from_rows is None and not required:
        raise NpuUnusedError(f"{_slower(device)}; force it with --npu-rows", "slower")
    if slower and from_rows is None:
        log.warning("%s; it is used because it is required", _slower(device))
    wanted = from_rows or min(modelled.from_rows if slower else plan.from_rows, plan.steps[-1])
    on_device = _loaded_attention(device, planned_attention(modelled.steps))
    return NpuUse(device, replace(plan, from_rows=wanted), there, trials, counts, on_device)


def _loaded_attention(device: NpuDevice, plan: AttentionPlan | None) -> AttentionOnDevice | None:
    """Attention with every program tried; None where something is wrong, and it stays on the CPU."""
    if plan is None:
        return None
    there = load_attention(device, plan)
    try:
        wrong = next(wrong_attention(device, there, JOB_MS), None)
    except NpuError as error:
        raise AttentionHungError(str(error)) from None
    if wrong is None:
        return there
    log.warning("attention stays on the CPU: on the NPU %s", wrong)
    there.release(device)
    return None


def _slower(device: NpuDevice) -> str:
    clock = device.describe().clock_hz
    at = f" at {clock / 1e6:.0f} MHz" if clock else ""
    return f"as measured, the NPU{at} is slower than the CPU for every step of this model"
