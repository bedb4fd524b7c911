"""The mainline kernel driver, as a program sees it through ioctl, over a virtual chip.

A submit returns at once; the jobs of a file run one after the other. A job that takes the kernel's timeout
ends by a reset of its core, and nobody is told: its buffers are as they were.
"""

from __future__ import annotations

import errno
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rockledge.npu import isa
from rockledge.npu.emulation.memory import Memory
from rockledge.npu.emulation.submit import Job
from rockledge.npu.stream import TRAILER_WORDS
from rockledge.npu.virtual.chip import CORES, Chip, Order
from rockledge.npu.virtual.device_faults import ALLOCATION
from rockledge.npu.virtual.device_memory import DeviceBuffer, DriverError, Space
from rockledge.npu.virtual.file import VirtualFile

KERNEL_TIMEOUT: Final = 0.5  # seconds for a task
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
    """A job on its way: what it runs, what it writes, and whether the emulator is at it."""

    kicks: list[Job]
    memory: Memory
    order: Order
    writes: list[DeviceBuffer]
    both: bool
    computing: bool = field(default=False)


class RocketDriver:
    """The driver and its device: an address space for every file."""

    name = "rocket"
    nodes: tuple[str, ...] = ("/dev/accel/accel0",)

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self._opened = 0

    def open(self) -> RocketFile:
        """A new file on its node."""
        with self.chip.changed:
            self._opened += 1
            return RocketFile(self.chip, self._opened % CORES)


class RocketFile(VirtualFile):
    """An open file: its address space, its queue, and the calls on it."""

    def __init__(self, chip: Chip, core: int) -> None:
        super().__init__(chip, RocketDriver.name, (0, 0, 0))
        self._space = Space(chip.allocator, downward=False)
        self._core = core
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
        if reserved or (count and job_bytes != _JOB.size):
            raise DriverError(errno.EINVAL)
        at = _SUBMIT.size
        for _ in range(count):
            at = self._submit_one(data, at)
        return data[: _SUBMIT.size]

    def _submit_one(self, data: bytes, at: int) -> int:
        """The job at byte `at` of what came behind the structure; returns where the next one is."""
        try:
            *_, tasks, task_bytes, n_reads, n_writes = _JOB.unpack_from(data, at)
            at += _JOB.size
            if not tasks or task_bytes != _TASK.size:
                raise DriverError(errno.EINVAL)
            found = [_TASK.unpack_from(data, at + i * _TASK.size) for i in range(tasks)]
            at += tasks * _TASK.size
            handles = [_HANDLE.unpack_from(data, at + 4 * i)[0] for i in range(n_reads + n_writes)]
            at += 4 * len(handles)
        except struct.error:
            raise DriverError(errno.EFAULT) from None
        if any(not words for _, words in found):
            raise DriverError(errno.EINVAL)
        buffers = [self.buffer(handle) for handle in handles]
        reads, writes = buffers[:n_reads], buffers[n_reads:]
        kicks = [Job(address, max(words - TRAILER_WORDS, 0), 1, isa.INT_DPU) for address, words in found]
        order = self.chip.order()
        if order.gone:
            raise DriverError(errno.ENODEV)
        if order.refuse is not None:
            raise DriverError(order.refuse)
        both = any(buffer in writes for buffer in reads)
        if both:
            self.chip.note("a buffer is in both lists of a job: the job ends without running")
        with self.chip.changed:
            self._queue.append(_Queued(kicks, self._space.memory(), order, writes, both))
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
        with self.chip.changed:
            if self._pending(buffer) and deadline <= time.monotonic_ns():
                raise DriverError(errno.EBUSY)
            while (job := self._pending(buffer)) is not None:
                self.alive()
                left = (deadline - time.monotonic_ns()) / _NS
                if left <= 0 and not job.computing:
                    raise DriverError(errno.ETIMEDOUT)
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

    def _pending(self, buffer: DeviceBuffer) -> _Queued | None:
        """The last job on its way that writes a buffer."""
        return next((job for job in reversed(self._queue) if buffer in job.writes), None)

    def _work(self) -> None:
        """Runs the queue, on a thread of the file's own, until the file is closed."""
        while True:
            with self.chip.changed:
                while not self._queue and not self._closed:
                    self.chip.changed.wait()
                if self._closed:
                    self._queue.clear()
                    return
                job = self._queue[0]
            try:
                self._run(job)
            finally:
                with self.chip.changed:
                    self._queue.popleft()
                    self.chip.changed.notify_all()

    def _run(self, job: _Queued) -> None:
        if job.order.skipped or job.both:
            return
        self.chip.sleep(job.order.busy)
        late = job.order.delay - job.order.busy
        if not job.order.lost and late < KERNEL_TIMEOUT:
            self.chip.sleep(late)
            job.computing = True
            if self.chip.run(job.memory, {self._core: job.kicks}):
                return
            job.computing = False
        self.chip.sleep(KERNEL_TIMEOUT)
        self.chip.reset()
