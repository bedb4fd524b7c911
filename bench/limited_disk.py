"""A disk of a limited rate, in place of the one that an engine reads its weights from."""

import ctypes
import os
import threading
import time
from pathlib import Path

from rockledge.artifact.layout import TENSORS


class FileReader:
    """Reads an artifact's file of tensors as the core would, from Python."""

    def __init__(self, artifact: Path) -> None:
        self._file = os.open(artifact / TENSORS, os.O_RDONLY)
        self.reads = 0

    def __call__(self, to: int, size: int, offset: int) -> int:
        self.reads += 1
        return os.preadv(self._file, [(ctypes.c_char * size).from_address(to)], offset)

    def close(self) -> None:
        os.close(self._file)


class LimitedReader(FileReader):
    """A disk of `rate` bytes a second that serves one read after the other, as long as there is one: it does
    not matter when the readers' threads wake up. `busy_s` is how long it has worked."""

    def __init__(self, artifact: Path, rate: float) -> None:
        super().__init__(artifact)
        self.rate = rate
        self.busy_s = 0.0
        self._free_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, to: int, size: int, offset: int) -> int:
        with self._lock:
            seconds = size / self.rate
            self._free_at = max(self._free_at, time.perf_counter()) + seconds
            self.busy_s += seconds
            done = self._free_at
        got = super().__call__(to, size, offset)
        time.sleep(max(0.0, done - time.perf_counter()))
        return got
