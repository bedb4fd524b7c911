"""A disk of a limited rate, in place of the one that an engine reads its weights from."""

import ctypes
import threading
import time
from pathlib import Path

import numpy as np

from rockledge.artifact.layout import TENSORS


class MemoryReader:
    """Gives an artifact's file of tensors from memory, so that no other user of the disk is in the way."""

    def __init__(self, artifact: Path) -> None:
        self._content = np.fromfile(artifact / TENSORS, np.uint8)

    def __call__(self, to: int, size: int, offset: int) -> int:
        part = self._content[offset : offset + size]
        ctypes.memmove(to, part.ctypes.data, part.nbytes)
        return int(part.nbytes)


class LimitedReader:
    """A disk of `rate` bytes a second over another reader, which serves one read after the other as long as
    there is one: it does not matter when the readers' threads wake up."""

    def __init__(self, read: MemoryReader, rate: float) -> None:
        self.rate = rate
        self._read = read
        self._free_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, to: int, size: int, offset: int) -> int:
        with self._lock:
            self._free_at = max(self._free_at, time.perf_counter()) + size / self.rate
            done = self._free_at
        got = self._read(to, size, offset)
        time.sleep(max(0.0, done - time.perf_counter()))
        return got
