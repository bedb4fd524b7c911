"""Memory of a virtual NPU: buffers that another process can map, at device addresses of an address space.

A buffer has two copies, as a board's has with its caches: what the CPU wrote reaches the device by a sync,
and the other way round. So a forgotten sync means computing with old bytes here too.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge_npu_lab.emulation.memory import ADDRESS_LIMIT, Buffer, Memory

PAGE: Final = 4096


class DriverError(Exception):
    """A call that the driver answers with `errno`."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


@dataclass(eq=False)
class DeviceBuffer:
    """A buffer: `size` bytes in whole pages at device address `address`; `descriptor` is a memfd.

    `shared` is what the CPU sees, `device` what the NPU sees: the same array where nothing is cached.
    """

    number: int
    address: int
    size: int
    flags: int
    descriptor: int
    shared: NDArray[np.uint8]
    device: NDArray[np.uint8]
    mapped: int = 0

    @property
    def map_offset(self) -> int:
        """What `mmap` takes as offset to mean this buffer."""
        return self.number << 32

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + self.size

    def to_device(self, offset: int = 0, size: int | None = None) -> None:
        """The device sees what the CPU wrote to a range (default: all of it)."""
        end = self.size if size is None else offset + size
        self.device[offset:end] = self.shared[offset:end]

    def from_device(self, offset: int = 0, size: int | None = None) -> None:
        """The CPU sees what the device wrote to a range (default: all of it)."""
        end = self.size if size is None else offset + size
        self.shared[offset:end] = self.device[offset:end]


class Allocator:
    """All memory of a device: numbers its buffers, and keeps within `limit` bytes (None: no limit)."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.used = 0
        self.live = 0
        self._numbered = 0

    def create(self, address: int, size: int, flags: int, cached: bool) -> DeviceBuffer:
        """A buffer of zeros. Raises DriverError when the device or this machine has no memory left."""
        if self.limit is not None and self.used + size > self.limit:
            raise DriverError(errno.ENOMEM)
        try:
            descriptor = os.memfd_create("npu-buffer", os.MFD_CLOEXEC)
        except OSError as error:
            raise DriverError(error.errno or errno.ENOMEM) from None
        try:
            os.ftruncate(descriptor, size)
            shared = mmap.mmap(descriptor, size)
        except (OSError, ValueError, OverflowError):
            os.close(descriptor)
            raise DriverError(errno.ENOMEM) from None
        self._numbered += 1
        self.used += size
        self.live += 1
        seen = np.frombuffer(shared, np.uint8)  # keeps the mapping alive for as long as a job needs it
        device = np.zeros(size, np.uint8) if cached else seen
        return DeviceBuffer(self._numbered, address, size, flags, descriptor, seen, device)

    def destroy(self, buffer: DeviceBuffer) -> None:
        """Frees a buffer; a mapping of it in the program, or a job on it, lives on until it ends."""
        os.close(buffer.descriptor)
        buffer.shared = buffer.device = np.zeros(0, np.uint8)
        self.used -= buffer.size
        self.live -= 1


class Space:
    """An address space of 4 GiB. `downward`: addresses are given out from the top."""

    def __init__(self, allocator: Allocator, *, downward: bool) -> None:
        self._allocator = allocator
        self._downward = downward
        self._buffers: list[DeviceBuffer] = []  # by rising address
        self._memory: Memory | None = None

    def allocate(self, size: int, flags: int = 0, *, cached: bool = True) -> DeviceBuffer:
        """A new buffer of at least `size` bytes. Raises DriverError (ENOMEM, EINVAL)."""
        if not 0 < size <= ADDRESS_LIMIT:
            raise DriverError(errno.EINVAL)
        size = -(-size // PAGE) * PAGE
        buffer = self._allocator.create(self._place(size), size, flags, cached)
        self._buffers.append(buffer)
        self._buffers.sort(key=lambda b: b.address)
        self._memory = None
        return buffer

    def free(self, buffer: DeviceBuffer) -> None:
        """Frees a buffer; its addresses are unmapped from then on."""
        self._buffers.remove(buffer)
        self._allocator.destroy(buffer)
        self._memory = None

    def memory(self) -> Memory:
        """All its buffers, as the emulator takes them."""
        if self._memory is None:
            self._memory = Memory(Buffer(f"buffer {b.number}", b.address, b.device) for b in self._buffers)
        return self._memory

    def _place(self, size: int) -> int:
        """The lowest (highest) address with room. The last page stays free: an end is a 32-bit number too."""
        ends = [0, *(b.end for b in self._buffers)]
        starts = [*(b.address for b in self._buffers), ADDRESS_LIMIT - PAGE]
        gaps = [(end, start) for end, start in zip(ends, starts, strict=True) if start - end >= size]
        if not gaps:
            raise DriverError(errno.ENOMEM)
        return gaps[-1][1] - size if self._downward else gaps[0][0]
