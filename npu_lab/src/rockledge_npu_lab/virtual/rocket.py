"""The mainline kernel driver, as a program sees it through ioctl, over a virtual chip.

A submit returns at once; the jobs of a file run one after the other. Which core a job runs on is the kernel's
choice (`CoreScheduler`). A job that reaches the kernel's timeout ends by a reset of its core, without an
error: its buffers are as they were. Nor does a submit report a job that the kernel did not take. All by
drivers/accel/rocket/rocket_job.c of Linux.

What the emulator computes takes no device time: a wait expires only while time passes on the device.
"""

from __future__ import annotations

import errno
import math
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rockledge.npu import isa
from rockledge.npu.stream import TRAILER_WORDS
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.submit import Job
from rockledge_npu_lab.virtual.chip import Chip, Order
from rockledge_npu_lab.virtual.device_faults import ALLOCATION, CORES
from rockledge_npu_lab.virtual.device_memory import DeviceBuffer, DriverError, Space
from rockledge_npu_lab.virtual.file import VirtualFile

KERNEL_TIMEOUT: Final = 0.5  # seconds for a job, however many tasks it has
_CREATE: Final = struct.Struct("<IIQQ")
_SUBMIT: Final = struct.Struct("<QIIQ")
_JOB: Final = struct.Struct("<QQQIIII")
_TASK: Final = struct.Struct("<II")
_HANDLE: Final = struct.Struct("<I")
_PREPARE: Final = struct.Struct("<IIq")
_FINISH: Final = struct.Struct("<II")
_NS: Final = 1_000_000_000


@dataclass(eq=False)
class _Queued:
    """A queued job: what it runs, what it writes, and on which core."""

    kicks: list[Job]
    memory: Memory
    order: Order
    writes: list[DeviceBuffer]
    core: int


class CoreScheduler:
    """Which core a job of a file runs on: the one with the least load, and of several the first.

    A core's load is its jobs, and one for each file whose latest job went there. A file stays where it is
    while a job of it has not ended (drm_sched_entity_select_rq and drm_sched_pick_best of the DRM scheduler).
    """

    def __init__(self) -> None:
        self.load = [0] * CORES
        self.free = tuple(threading.Lock() for _ in range(CORES))
        """A core runs one job at a time."""
        self.waits = [False] * CORES
        """Whether time passes on a core: it hangs, is late or is busy with the job of somebody else."""

    def place(self, before: int | None, busy: bool) -> int:
        """The core of a file's next job, by the core `before` and whether a job of it has not ended."""
        if before is None or not busy:
            best = self.load.index(min(self.load))
            if before is not None:
                self.load[before] -= 1
            self.load[best] += 1
            before = best
        self.load[before] += 1
        return before

    def ended(self, core: int) -> None:
        """A job on that core has ended."""
        self.load[core] -= 1


class RocketDriver:
    """The driver and its device: an address space for every file."""

    name = "rocket"
    nodes: tuple[str, ...] = ("/dev/accel/accel0",)

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self._scheduler = CoreScheduler()

    def open(self) -> RocketFile:
        """A new file on its node."""
        return RocketFile(self.chip, self._scheduler)


class RocketFile(VirtualFile):
    """An open file: its address space, its queue, and the calls on it."""

    def __init__(self, chip: Chip, scheduler: CoreScheduler) -> None:
        super().__init__(chip, RocketDriver.name, (0, 0, 0))
        self._space = Space(chip.allocator, downward=False)
        self._scheduler = scheduler
        self._core: int | None = None  # of its latest job
        self._queue: deque[_Queued] = deque()
        self._closed = False
        self._worker: threading.Thread | None = None
        self._calls: dict[int, tuple[int, Callable[[bytes], bytes]]] = {
            0x40: (_CREATE.size, self._create),
            0x41: (_SUBMIT.size, self._submit),
            0x42: (_PREPARE.size, self._prepare),
            0x43: (_FINISH.size, self._finish),
        }

    def driver_call(self, number: int, data: bytes) -> bytes:
        """As `VirtualFile`."""
        if number not in self._calls:
            raise DriverError(errno.EINVAL)
        size, run = self._calls[number]
        return run(data.ljust(size, b"\0"))

    def free(self, buffer: DeviceBuffer) -> None:
        """As `VirtualFile`."""
        with self.chip.changed:
            self._space.free(buffer)

    def close(self) -> int:
        """As `VirtualFile`; jobs that have not begun never do."""
        with self.chip.changed:
            self._closed = True
            self.chip.changed.notify_all()
        if self._worker is not None:
            self._worker.join()
        with self.chip.changed:
            if self._core is not None:
                self._scheduler.ended(self._core)
        return super().close()

    def _create(self, data: bytes) -> bytes:
        size, *_ = _CREATE.unpack(data[: _CREATE.size])
        with self.chip.changed:
            for fault in self.chip.faults.next(ALLOCATION):
                raise DriverError(fault.errno)
            buffer = self._space.allocate(size)
        return _CREATE.pack(size, self.add(buffer), buffer.address, buffer.map_offset)

    def _submit(self, data: bytes) -> bytes:
        _, count, job_bytes, reserved = _SUBMIT.unpack(data[: _SUBMIT.size])
        # Longer structures than ours are taken; what follows the known part is not read.
        if count and (job_bytes < _JOB.size or reserved):
            raise DriverError(errno.EINVAL)
        at = _SUBMIT.size
        for _ in range(count):
            at = self._submit_one(data, at)
        return data[: _SUBMIT.size]

    def _submit_one(self, data: bytes, at: int) -> int:
        """The job at byte `at` of what followed the structure; returns where the next one is.

        A job that the kernel does not take is skipped, and the submit goes on.
        """
        try:
            *_, tasks, task_bytes, n_reads, n_writes = _JOB.unpack_from(data, at)
            at += _JOB.size
            found = [_TASK.unpack_from(data, at + i * _TASK.size) for i in range(tasks)]
            at += tasks * _TASK.size
            handles = [_HANDLE.unpack_from(data, at + 4 * i)[0] for i in range(n_reads + n_writes)]
            at += 4 * len(handles)
        except struct.error:
            raise DriverError(errno.EFAULT) from None
        if not tasks or task_bytes < _TASK.size or any(not words for _, words in found):
            return at
        with self.chip.changed:
            if any(handle not in self._handles for handle in handles):
                return at
            buffers = [self._handles[handle] for handle in handles]
            if len(set(handles)) < len(handles):  # they cannot be locked together
                self.chip.note("a buffer is listed twice in a job: the job ends without running")
                return at
            core = self._scheduler.place(self._core, bool(self._queue))
            order = self.chip.order([core])
            if order.gone:
                raise DriverError(errno.ENODEV)
            self._core = core
            if order.refuse is not None:
                self._scheduler.ended(core)
                return at
            kicks = [Job(where, max(words - TRAILER_WORDS, 0), 1, isa.INT_DPU) for where, words in found]
            self.last_job_end = math.inf
            self._queue.append(_Queued(kicks, self._space.memory(), order, buffers[n_reads:], core))
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, daemon=True)
                self._worker.start()
            self.chip.changed.notify_all()
        return at

    def _prepare(self, data: bytes) -> bytes:
        handle, reserved, deadline = _PREPARE.unpack(data[: _PREPARE.size])
        if reserved:
            raise DriverError(errno.EINVAL)
        buffer = self.buffer(handle)
        late = errno.EBUSY if deadline <= time.monotonic_ns() else errno.ETIMEDOUT
        with self.chip.changed:
            while self._pending(buffer):
                self.alive()
                left = (deadline - time.monotonic_ns()) / _NS
                if left <= 0 and self._scheduler.waits[self._queue[0].core]:
                    raise DriverError(late)
                self.chip.changed.wait(min(max(left, 0.01), KERNEL_TIMEOUT))
        self.alive()
        buffer.from_device()
        return data[: _PREPARE.size]

    def _finish(self, data: bytes) -> bytes:
        handle, reserved = _FINISH.unpack(data[: _FINISH.size])
        if reserved:
            raise DriverError(errno.EINVAL)
        self.buffer(handle).to_device()
        return data[: _FINISH.size]

    def _pending(self, buffer: DeviceBuffer) -> bool:
        """Whether a queued job writes a buffer."""
        return any(buffer in job.writes for job in self._queue)

    def _work(self) -> None:
        """Runs the queue, on a thread of the file's own, until the file is closed."""
        while True:
            with self.chip.changed:
                while not self._queue and not self._closed:
                    self.chip.changed.wait()
                if self._closed:
                    for waiting in self._queue:
                        self._scheduler.ended(waiting.core)
                    self._queue.clear()
                    return
                job = self._queue[0]
            try:
                with self._scheduler.free[job.core]:
                    self._run(job)
            finally:
                with self.chip.changed:
                    self._queue.popleft()
                    if not self._queue:
                        self.last_job_end = time.monotonic()
                    self._scheduler.ended(job.core)
                    self.chip.changed.notify_all()

    def _run(self, job: _Queued) -> None:
        if job.order.skipped:
            return
        self._wait(job, job.order.busy)
        late = job.order.delay - job.order.busy
        if not job.order.lost and late < KERNEL_TIMEOUT:
            self._wait(job, late)
            took = self.chip.run(job.memory, {job.core: job.kicks}, job.order.damage)
            if took is not None and (passing := self.chip.passing(took)) + late < KERNEL_TIMEOUT:
                self._wait(job, passing)
                return
        self._wait(job, KERNEL_TIMEOUT)
        self.chip.reset()

    def _wait(self, job: _Queued, seconds: float) -> None:
        """Lets device time pass on the job's core, which the job has to itself."""
        if seconds <= 0:
            return
        self._scheduler.waits[job.core] = True
        self.chip.sleep(seconds)
        self._scheduler.waits[job.core] = False
