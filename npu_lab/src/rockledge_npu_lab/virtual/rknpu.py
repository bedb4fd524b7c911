"""The vendor's kernel driver, as a program sees it through ioctl, over a virtual chip.

Calls are found by their number; their structures are cut or padded with zeros, as in the kernel's DRM layer.
What the real driver does not check and crashes on, the chip records as a crash.
"""

from __future__ import annotations

import errno
import math
import struct
import time
from collections.abc import Callable
from typing import Final, NoReturn

import numpy as np

from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.submit import Job
from rockledge_npu_lab.virtual.chip import TASKS_IN_KICK, Chip, Order
from rockledge_npu_lab.virtual.device_faults import ALLOCATION
from rockledge_npu_lab.virtual.device_memory import DeviceBuffer, DriverError, Space
from rockledge_npu_lab.virtual.file import VirtualFile

CACHEABLE: Final = 1 << 1
KERNEL_MAPPING: Final = 1 << 3
HARDWARE_VERSION: Final = 0x46495245
# Kernel addresses of the driver's objects: any numbers that cannot be guessed by counting.
_FIRST_OBJECT: Final = 0xFFFF_FF80_0000_0000
_OBJECT_STEP: Final = 0x1C0
_ACTION: Final = struct.Struct("<II")
_CREATE: Final = struct.Struct("<IIQQQQiI")
_CREATE_BEFORE_096: Final = struct.Struct("<IIQQQQ")
_MAP: Final = struct.Struct("<IIQ")
_DESTROY: Final = struct.Struct("<IIQ")
_SYNC: Final = struct.Struct("<IIQQQ")
_SUBMIT: Final = struct.Struct("<5IiQIIQqIi10I")
_TASK: Final = np.dtype(
    [
        *((name, "<u4") for name in ("flags", "operation", "enable", "int_mask")),
        *((name, "<u4") for name in ("int_clear", "int_status", "amount", "offset")),
        ("address", "<u8"),
    ]
)
# (cores, first of the slots that count) of a core mask. The driver cannot commit the masks 5 and 6: EINVAL,
# without a reset (rknpu_job.c of 0.9.8).
_SLOTS: Final = {1: ((0,), 0), 2: ((1,), 1), 4: ((2,), 2), 3: ((0, 1), 0), 7: ((0, 1, 2), 2)}
_PC_MODE, _FENCES = 1, 8 | 16
_NS: Final = 1_000_000_000


class RknpuDriver:
    """The driver and its device: one address space for all files."""

    name = "rknpu"
    nodes: tuple[str, ...] = ("/dev/dri/renderD129", "/dev/dri/card1")

    def __init__(self, chip: Chip, version: tuple[int, int, int] = (0, 9, 8), *, sram_bytes: int = 0) -> None:
        self.chip = chip
        self.sram_bytes = sram_bytes
        self.version = version
        self.space = Space(chip.allocator, downward=True)
        self.objects: dict[int, DeviceBuffer] = {}

    def open(self) -> RknpuFile:
        """A new file on one of its nodes."""
        return RknpuFile(self)


class RknpuFile(VirtualFile):
    """An open file: its handles, and the calls on it."""

    def __init__(self, driver: RknpuDriver) -> None:
        super().__init__(driver.chip, driver.name, driver.version)
        self._driver = driver
        self._old = driver.version < (0, 9, 6)
        create = _CREATE_BEFORE_096 if self._old else _CREATE
        self._calls: dict[int, tuple[int, Callable[[bytes], bytes]]] = {
            0x40: (_ACTION.size, self._action),
            0x41: (_SUBMIT.size, self._submit),
            0x42: (create.size, self._create),
            0x43: (_MAP.size, self._map),
            0x44: (_DESTROY.size, self._destroy),
            0x45: (_SYNC.size, self._sync),
        }

    def driver_call(self, number: int, data: bytes) -> bytes:
        """As `VirtualFile`."""
        if number not in self._calls:
            raise DriverError(errno.EINVAL)
        size, run = self._calls[number]
        result = run(data[:size].ljust(size, b"\0"))
        return result[: len(data)].ljust(len(data), b"\0")

    def free(self, buffer: DeviceBuffer) -> None:
        """As `VirtualFile`."""
        with self.chip.changed:
            del self._driver.objects[_object(buffer)]
            self._driver.space.free(buffer)

    def _action(self, data: bytes) -> bytes:
        what, value = _ACTION.unpack(data)
        major, minor, patch = self._driver.version
        answers = {
            0: HARDWARE_VERSION,
            1: major * 10000 + minor * 100 + patch,
            2: self.chip.clock_hz,
            18: 1,
            22: self._driver.sram_bytes,
            23: self._driver.sram_bytes,
        }
        if what == 6:
            self.chip.reset()
        elif what in answers:
            value = answers[what]
        elif what not in (3, 13, 19):
            raise DriverError(errno.EINVAL)
        return _ACTION.pack(what, value)

    def _create(self, data: bytes) -> bytes:
        layout = _CREATE_BEFORE_096 if self._old else _CREATE
        handle, flags, size, _, _, sram, *rest = layout.unpack(data)
        if handle:  # looks up what was imported; nothing here can import
            raise DriverError(errno.ENOENT)
        with self.chip.changed:
            for fault in self.chip.faults.next(ALLOCATION):
                raise DriverError(fault.errno)
            buffer = self._driver.space.allocate(size, flags, cached=bool(flags & CACHEABLE))
            self._driver.objects[_object(buffer)] = buffer
        handle = self.add(buffer)
        return layout.pack(handle, flags, buffer.size, _object(buffer), buffer.address, sram, *rest)

    def _map(self, data: bytes) -> bytes:
        handle, reserved, _ = _MAP.unpack(data)
        return _MAP.pack(handle, reserved, self.buffer(handle).map_offset)

    def _destroy(self, data: bytes) -> bytes:
        # The driver looks only at the handle.
        handle, _, _ = _DESTROY.unpack(data)
        self.drop(handle)
        return data

    def _sync(self, data: bytes) -> bytes:
        flags, _, pointer, offset, size = _SYNC.unpack(data)
        buffer = self._at(pointer, "MEM_SYNC")
        if not buffer.flags & CACHEABLE or not 1 <= flags <= 3:
            raise DriverError(errno.EINVAL)
        if offset + size > buffer.size:
            raise self.chip.crash(
                f"MEM_SYNC of bytes {offset} to {offset + size} of a buffer of {buffer.size}"
            )
        if flags & 1:
            buffer.to_device(offset, size)
        if flags & 2:
            buffer.from_device(offset, size)
        return data

    def _at(self, pointer: int, what: str) -> DeviceBuffer:
        """The object at a kernel address, which the driver follows without a check."""
        with self.chip.changed:
            found = self._driver.objects.get(pointer)
        if found is None:
            raise self.chip.crash(f"{what} follows {pointer:#x}, where there is no object")
        return found

    def _submit(self, data: bytes) -> bytes:
        fields = list(_SUBMIT.unpack(data))
        flags, timeout_ms, _, number = fields[:4]
        mask = fields[11] or 1
        if not flags & _PC_MODE or flags & _FENCES or not number or mask not in _SLOTS:
            raise DriverError(errno.EINVAL)
        tasks = self._at(fields[6], "SUBMIT")
        if not tasks.flags & KERNEL_MAPPING:
            raise self.chip.crash("SUBMIT of tasks in a buffer without KERNEL_MAPPING")
        kicks = {
            core: self._kicks(tasks, fields[13 + 2 * slot : 15 + 2 * slot]) for core, slot in _slots(mask)
        }
        with self.chip.changed:
            memory = self._driver.space.memory()
        order = self.chip.order(kicks)
        timeout = timeout_ms / 1000
        self.last_job_end = math.inf
        try:
            return self._run(order, memory, kicks, fields, mask, timeout)
        finally:
            self.last_job_end = time.monotonic()

    def _run(
        self,
        order: Order,
        memory: Memory,
        kicks: dict[int, list[Job]],
        fields: list[int],
        mask: int,
        timeout: float,
    ) -> bytes:
        """Runs the job to its end; returns the structure as it comes back."""
        number = fields[3]
        self._before_run(order, timeout)
        took = 0.0 if order.skipped else self.chip.run(memory, kicks, order.damage)
        if took is None:
            self._give_up(timeout)
        else:
            passing = self.chip.passing(took)
            if passing + order.delay >= timeout:
                self._give_up(timeout)
            self.chip.sleep(passing)
            fields[10] = int((took + order.delay - order.busy) * _NS)
        fields[4], fields[11] = number, mask
        return _SUBMIT.pack(*fields)

    def _before_run(self, order: Order, timeout: float) -> None:
        """Applies what the schedule has for this job before it runs."""
        if order.gone:
            raise DriverError(errno.ENODEV)
        if order.refuse is not None:
            raise DriverError(order.refuse)
        if order.lost or order.delay >= timeout:
            self._give_up(timeout * order.waits)
        self.chip.sleep(order.delay)

    def _give_up(self, seconds: float) -> NoReturn:
        self.chip.sleep(seconds)
        self.chip.reset()
        raise DriverError(errno.ETIMEDOUT)

    def _kicks(self, buffer: DeviceBuffer, task_range: list[int]) -> list[Job]:
        """The kicks of a range of the task array; the driver reads the first and last task of each."""
        start, number = task_range
        room = buffer.size // _TASK.itemsize
        if not number or start + number > room:
            raise self.chip.crash(f"SUBMIT of tasks {start} to {start + number} of an array of {room}")
        tasks = buffer.shared[: room * _TASK.itemsize].view(_TASK)
        kicks = []
        for first in range(start, start + number, TASKS_IN_KICK):
            count = min(TASKS_IN_KICK, start + number - first)
            opening, closing = tasks[first], tasks[first + count - 1]
            address, body = int(opening["address"]), int(opening["amount"])
            kicks.append(Job(address, body, count, int(closing["int_mask"])))
        return kicks


def _slots(mask: int) -> list[tuple[int, int]]:
    """(core, slot of the submit) for each core of a mask."""
    cores, first = _SLOTS[mask]
    return [(core, first + index) for index, core in enumerate(cores)]


def _object(buffer: DeviceBuffer) -> int:
    return _FIRST_OBJECT + buffer.number * _OBJECT_STEP
