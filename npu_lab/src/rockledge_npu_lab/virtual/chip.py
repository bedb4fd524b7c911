"""The NPU behind a virtual driver: three emulated cores, their resets, and the faults of a schedule.

Device time stands still while the emulator computes: a job is late or lost by its fault alone, never because
this machine is slow.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rockledge.errors import NpuError
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.options import DEFAULT, Options
from rockledge_npu_lab.emulation.submit import Job, TracedMemory
from rockledge_npu_lab.virtual.damage import DamagedMemory, LeftByJobs
from rockledge_npu_lab.virtual.device_faults import CORES, JOB, RESET, Fault, Schedule
from rockledge_npu_lab.virtual.device_memory import Allocator, DriverError

TASKS_IN_KICK: Final = 4095
CLOCK_HZ: Final = 1_000_000_000
PRODUCTS_IN_CYCLE: Final = 1024
_DAMAGE: Final = ("skipped_program", "wrong_rows", "flipped_bits", "stale_output", "dead_core")


@dataclass(frozen=True)
class Order:
    """What the schedule says about the next job; a driver acts on it before or instead of running the job.

    `damage` is for `Chip.run`: what happens to the job while it runs.
    """

    refuse: int | None = None  # an errno
    delay: float = 0.0  # seconds, of which `busy` until it starts
    busy: float = 0.0
    lost: bool = False
    waits: int = 1  # how many timeouts the driver lets pass before it gives up
    skipped: bool = False
    gone: bool = False
    damage: tuple[Fault, ...] = ()


class Chip:
    """Three cores and what all files of a driver share. `note` is called with what a user should know.

    `changed` is the lock of everything here, and is notified when a job ends.
    """

    def __init__(
        self,
        faults: Schedule,
        options: Options = DEFAULT,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.faults = faults
        self.note = note
        self.allocator = Allocator(faults.memory_bytes)
        self.changed = threading.Condition(threading.RLock())
        self.gone = False
        self.closing = threading.Event()
        self.lock_holder: object | None = None
        self.foreign_lock = False
        self.jobs = 0
        self.resets = 0
        self.crashes = 0
        self.programs = 0
        self.macs = 0
        self._cores = tuple(Core(Memory([]), options, index) for index in range(CORES))
        self._running = threading.Lock()
        self._last_job = math.inf  # when it ended
        self._wrong_next = False
        self._left = LeftByJobs() if faults.has("stale_output") else None

    @property
    def clock_hz(self) -> int:
        """The clock of the cores, in hertz."""
        return self.faults.clock_hz or CLOCK_HZ

    def order(self, cores: Iterable[int]) -> Order:
        """Counts a job for these cores and says what happens to it."""
        with self.changed:
            self.jobs += 1
            hits = self.faults.next(JOB, cores)
            hit = {fault.kind: fault for fault in hits}
            if "gone" in hit:
                self.gone = True
            none = Fault("late")
            busy = hit.get("busy", none).seconds
            asleep = time.monotonic() - self._last_job > self.faults.sleeps_after
            self.faults.happened += asleep
            self._last_job = time.monotonic()
            fails = [f.errno for f in hits if f.kind == "error" or _is_dead(f, "error")]
            return Order(
                refuse=fails[0] if fails else None,
                delay=busy + hit.get("late", none).seconds,
                busy=busy,
                lost="lost" in hit,
                waits=hit.get("lost", none).waits,
                skipped=asleep or "skipped" in hit,
                gone=self.gone,
                damage=tuple(f for f in hits if f.kind in _DAMAGE),
            )

    def run(
        self, memory: Memory, kicks: Mapping[int, Sequence[Job]], damage: Sequence[Fault] = ()
    ) -> float | None:
        """Runs kicks one after the other on each core that is named, over the address space `memory`.

        Returns the seconds that the products of the busiest core take, None when a core hangs.
        """
        with self._running:
            wrong, self._wrong_next = self._wrong_next, False
            longest, hangs = 0.0, False
            for core, jobs in kicks.items():
                mine = [fault for fault in damage if fault.reaches(core)]
                if any(_is_dead(fault, "nothing") for fault in mine):
                    continue
                if any(_is_dead(fault, "lost") for fault in mine):
                    hangs = True
                    continue
                before = self.macs
                seen = memory
                if mine or self._left is not None:
                    seen = DamagedMemory(memory, mine, [job.tasks for job in jobs], self._left)
                if not all(self._kick(self._cores[core], seen, job, wrong) for job in jobs):
                    return None
                longest = max(longest, (self.macs - before) / PRODUCTS_IN_CYCLE / self.clock_hz)
            self._last_job = time.monotonic()
        return None if hangs else longest

    def passing(self, seconds: float) -> float:
        """The part of the products' seconds that really passes: all of it with a slow clock, else 0."""
        return 0.0 if self.faults.clock_hz is None else seconds

    def _kick(self, core: Core, memory: Memory, job: Job, wrong: bool) -> bool:
        traced = TracedMemory(memory) if wrong else None
        core.memory = memory if traced is None else traced
        try:
            done = core.kick(job.address, job.body_words, job.tasks, job.int_mask)
        except NpuError as error:
            self.note(f"core {core.index} hangs: {error}")
            return False
        finally:
            core.memory = Memory([])
        self.programs += done.programs
        self.macs += done.macs
        for flag in done.flags:
            self.note(f"core {core.index}: {flag}")
        if traced is not None:
            for buffer, written in zip(memory.buffers, traced.writes.buffers, strict=True):
                buffer.data[written.data != 0] = 0
        return True

    def crash(self, text: str) -> DriverError:
        """Records what would crash a real kernel; returns the error to answer with."""
        with self.changed:
            self.crashes += 1
        self.note(f"the kernel would have crashed: {text}")
        return DriverError(errno.EFAULT)

    def sleep(self, seconds: float) -> None:
        """Lets device time pass, unless the device is being taken away."""
        self.closing.wait(seconds)

    def reset(self) -> None:
        """A soft reset: registers lose their values, jobs that hang are lost."""
        with self.changed:
            self.resets += 1
            self._wrong_next |= any(fault.kind == "wrong" for fault in self.faults.next(RESET))
        with self._running:
            for core in self._cores:
                core.reset()


def _is_dead(fault: Fault, how: str) -> bool:
    return fault.kind == "dead_core" and fault.how == how
