"""What the files of both virtual drivers have in common: handles, mapping, the lock, and DRM's own calls."""

from __future__ import annotations

import errno
import fcntl
import struct
from abc import ABC, abstractmethod
from typing import Final

from rockledge_npu_lab.virtual.chip import Chip
from rockledge_npu_lab.virtual.device_memory import DeviceBuffer, DriverError

_DRM: Final = ord("d")
_VERSION: Final = struct.Struct("<iiixxxxQQQQQQ")
_GEM_CLOSE: Final = struct.Struct("<II")
_DATE: Final = b"20240828"


class VirtualFile(ABC):
    """One open file of a device. Methods raise DriverError for what the kernel refuses."""

    def __init__(self, chip: Chip, name: str, version: tuple[int, int, int]) -> None:
        self.chip = chip
        self._name, self._version = name, version
        self._handles: dict[int, DeviceBuffer] = {}
        self._numbered = 0
        self.last_job_end: float | None = None
        """When its latest job ended, as time.monotonic(); infinity while one runs."""

    @abstractmethod
    def driver_call(self, number: int, data: bytes) -> bytes:
        """The driver's own ioctl of that number: takes its structure, returns the answered one."""

    @abstractmethod
    def free(self, buffer: DeviceBuffer) -> None:
        """Gives back a buffer whose handle is gone."""

    def ioctl(self, request: int, data: bytes) -> bytes:
        """Any ioctl. `data`: the structure and what its pointers name; returns the structure likewise."""
        self.alive()
        if request >> 8 & 0xFF != _DRM:
            raise DriverError(errno.ENOTTY)
        number = request & 0xFF
        if number >= 0x40:
            return self.driver_call(number, data)
        if number == 0x00:
            return self._drm_version(data)
        if number == 0x09:
            handle, reserved = _GEM_CLOSE.unpack(data[:8].ljust(8, b"\0"))
            self.drop(handle)
            return _GEM_CLOSE.pack(handle, reserved)
        raise DriverError(errno.EINVAL)

    def alive(self) -> None:
        """Raises DriverError (ENODEV) when the device is gone."""
        if self.chip.gone:
            raise DriverError(errno.ENODEV)

    def buffer(self, handle: int) -> DeviceBuffer:
        """The buffer of a handle. Raises DriverError (ENOENT)."""
        with self.chip.changed:
            if handle not in self._handles:
                raise DriverError(errno.ENOENT)
            return self._handles[handle]

    def add(self, buffer: DeviceBuffer) -> int:
        """A handle for a new buffer."""
        with self.chip.changed:
            self._numbered += 1
            self._handles[self._numbered] = buffer
            return self._numbered

    def drop(self, handle: int) -> None:
        """Forgets a handle and frees its buffer. Raises DriverError (EINVAL) for one that does not exist."""
        with self.chip.changed:
            buffer = self._handles.pop(handle, None)
        if buffer is None:
            raise DriverError(errno.EINVAL)
        self.free(buffer)

    def map(self, offset: int, length: int) -> int:
        """The descriptor to map, from its byte 0. Raises DriverError."""
        self.alive()
        with self.chip.changed:
            found = [b for b in self._handles.values() if b.map_offset == offset]
            if not found or not 0 < length <= found[0].size:
                raise DriverError(errno.EINVAL)
            found[0].mapped += 1
            return found[0].descriptor

    def unmap(self, offset: int) -> None:
        """One mapping fewer of the buffer at that offset, if it still exists."""
        with self.chip.changed:
            for buffer in self._handles.values():
                if buffer.map_offset == offset:
                    buffer.mapped -= 1

    def lock(self, operation: int) -> None:
        """As `flock`. Raises DriverError (EWOULDBLOCK) when another file has the lock."""
        with self.chip.changed:
            holder = self.chip.lock_holder
            if operation & fcntl.LOCK_UN:
                self.chip.lock_holder = None if holder is self else holder
            elif self.chip.foreign_lock or holder not in (None, self):
                raise DriverError(errno.EWOULDBLOCK)
            else:
                self.chip.lock_holder = self

    def close(self) -> int:
        """The end of the file: frees what it still has; returns how many buffers those were."""
        with self.chip.changed:
            left = list(self._handles.values())
            self._handles.clear()
            if self.chip.lock_holder is self:
                self.chip.lock_holder = None
        for buffer in left:
            self.free(buffer)
        return len(left)

    def _drm_version(self, data: bytes) -> bytes:
        if len(data) < _VERSION.size:
            raise DriverError(errno.EINVAL)
        fields = _VERSION.unpack(data[: _VERSION.size])
        strings = (self._name.encode(), _DATE, b"virtual NPU")
        pointers = fields[4::2]
        lengths = [item for s, pointer in zip(strings, pointers, strict=True) for item in (len(s), pointer)]
        return _VERSION.pack(*self._version, *lengths) + b"".join(strings)


class Bystander(VirtualFile):
    """A file of another driver's node, such as the display's: it reports its name and does nothing else."""

    def __init__(self, chip: Chip) -> None:
        super().__init__(chip, "rockchip", (1, 0, 0))

    def driver_call(self, number: int, data: bytes) -> bytes:
        """As `VirtualFile`: refused."""
        raise DriverError(errno.EINVAL)

    def free(self, buffer: DeviceBuffer) -> None:
        """As `VirtualFile`; it never has one."""
