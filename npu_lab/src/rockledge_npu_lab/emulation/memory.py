"""Device memory as the NPU sees it: named buffers at 32-bit addresses, and strided windows into them.

Every access is a window: a base address, a shape and a byte stride for each axis. A window is checked before
a byte is touched, so nothing outside the given buffers is ever read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rockledge.errors import NpuError

ADDRESS_LIMIT: Final = 1 << 32
# A window scattered over several buffers is followed element by element; no program needs more.
SCATTER_LIMIT: Final = 1 << 24


class AccessError(NpuError):
    """An access outside the buffers that were given, or outside the 4 GiB of device addresses."""


@dataclass(frozen=True)
class Buffer:
    """`data` (uint8, one axis, contiguous) seen by the device at `address`; writes go into `data` itself."""

    name: str
    address: int
    data: NDArray[np.uint8]

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + len(self.data)


@dataclass(frozen=True)
class Window:
    """Elements at base + sum of index x stride, in bytes; strides are never negative."""

    base: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    @property
    def end(self) -> int:
        """The first address after the last byte; the base when it has no elements."""
        if not self.count:
            return self.base
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.base + last + self.dtype.itemsize

    def addresses(self) -> NDArray[np.int64]:
        """The address of every element, in the window's shape."""
        found = np.full(self.shape, self.base, np.int64)
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            steps = [1] * len(self.shape)
            steps[axis] = size
            found += (np.arange(size, dtype=np.int64) * stride).reshape(steps)
        return found

    def overlaps_itself(self) -> bool:
        """Whether two elements share a byte (True also where that would take too long to decide)."""
        reach = self.dtype.itemsize
        axes = zip(self.strides, self.shape, strict=True)
        for stride, size in sorted((stride, size) for stride, size in axes if size > 1):
            if stride < reach:
                break
            reach += (size - 1) * stride
        else:
            return False
        if self.count > SCATTER_LIMIT:
            return True
        found = np.sort(self.addresses(), axis=None)
        return bool((np.diff(found) < self.dtype.itemsize).any())


def window(base: int, shape: Iterable[int], strides: Iterable[int], dtype: DTypeLike) -> Window:
    """A window; see `Window`."""
    return Window(base, tuple(shape), tuple(strides), np.dtype(dtype))


class Memory:
    """The buffers of one address space. Raises NpuError when two overlap or one leaves the 4 GiB."""

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        self.buffers = tuple(sorted(buffers, key=lambda buffer: buffer.address))
        for buffer in self.buffers:
            data = buffer.data
            if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
                raise NpuError(f"buffer {buffer.name} is not a flat array of bytes")
            if buffer.address < 0 or buffer.end > ADDRESS_LIMIT:
                raise NpuError(
                    f"buffer {buffer.name} lies at {buffer.address:#x} to {buffer.end:#x}, "
                    "expected addresses below 4 GiB"
                )
        for before, after in zip(self.buffers, self.buffers[1:], strict=False):
            if before.end > after.address:
                raise NpuError(
                    f"buffers {before.name} and {after.name} overlap at {after.address:#x}; place them apart"
                )
        self._starts = np.array([buffer.address for buffer in self.buffers], np.int64)

    @classmethod
    def of(cls, arrays: Mapping[str, tuple[int, NDArray[Any]]]) -> Memory:
        """Memory over contiguous arrays of any type: name -> (address, array); it writes into the arrays."""
        return cls(
            Buffer(name, address, array.reshape(-1).view(np.uint8))
            for name, (address, array) in arrays.items()
        )

    def read(self, wanted: Window) -> NDArray[Any]:
        """The elements of a window, in its shape: a read-only view where one buffer holds them all.

        Raises AccessError for the first address that no buffer has.
        """
        if not wanted.count:
            return np.empty(wanted.shape, wanted.dtype)
        view = self._view(wanted)
        if view is not None:
            view.flags.writeable = False
            return view
        result = np.empty(wanted.shape, wanted.dtype)
        flat = result.reshape(-1).view(np.uint8).reshape(-1, wanted.dtype.itemsize)
        for buffer, mine, places in self._scattered(wanted):
            flat[mine] = buffer.data[places]
        return result

    def write(self, wanted: Window, values: NDArray[Any]) -> None:
        """Stores values of the window's shape and dtype. Raises AccessError before anything is written."""
        if not wanted.count:
            return
        view = self._view(wanted)
        if view is not None:
            view[...] = values
            return
        flat = np.ascontiguousarray(values, wanted.dtype).reshape(-1)
        flat_bytes = flat.view(np.uint8).reshape(-1, wanted.dtype.itemsize)
        for buffer, mine, places in self._scattered(wanted):
            buffer.data[places] = flat_bytes[mine]

    def check(self, wanted: Window) -> None:
        """Raises AccessError when the window leaves the buffers."""
        if wanted.count and self._view(wanted) is None:
            self._scattered(wanted)

    def _view(self, wanted: Window) -> NDArray[Any] | None:
        """The window as an array over the one buffer that holds it; None when no single one does."""
        if wanted.end > ADDRESS_LIMIT:
            raise AccessError(
                f"bytes {wanted.base:#x} to {wanted.end:#x} leave the 4 GiB of device addresses"
            )
        at = int(np.searchsorted(self._starts, wanted.base, side="right")) - 1
        if at < 0 or wanted.end > self.buffers[at].end:
            return None
        buffer = self.buffers[at]
        return np.ndarray(
            wanted.shape,
            wanted.dtype,
            buffer=buffer.data.data,
            offset=wanted.base - buffer.address,
            strides=wanted.strides,
        )

    def _scattered(self, wanted: Window) -> list[tuple[Buffer, NDArray[np.int64], NDArray[np.int64]]]:
        """For every buffer with a part of a window: which elements, and their bytes [elements, itemsize]."""
        if wanted.count > SCATTER_LIMIT:
            raise AccessError(
                f"{wanted.count} elements from {wanted.base:#x} to "
                f"{wanted.end:#x} do not lie in a single buffer"
            )
        addresses = wanted.addresses().reshape(-1)
        owners = np.searchsorted(self._starts, addresses, side="right") - 1
        ends = np.array([buffer.end for buffer in self.buffers] + [0], np.int64)
        outside = (owners < 0) | (addresses + wanted.dtype.itemsize > ends[owners])
        if outside.any():
            first = int(addresses[int(np.argmax(outside))])
            raise AccessError(f"address {first:#x} does not lie in a buffer ({self._known()})")
        within = np.arange(wanted.dtype.itemsize)
        found = []
        for owner in np.unique(owners):
            mine = np.flatnonzero(owners == owner)
            buffer = self.buffers[int(owner)]
            found.append((buffer, mine, (addresses[mine] - buffer.address)[:, None] + within))
        return found

    def _known(self) -> str:
        return ", ".join(f"{b.name} {b.address:#x} to {b.end:#x}" for b in self.buffers) or "no buffers"
