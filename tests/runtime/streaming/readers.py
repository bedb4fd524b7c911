"""A reader in place of the disk's own that fails; `bench.limited_disk` has one of a limited rate."""

import errno
from pathlib import Path

from bench.limited_disk import MemoryReader


class FailingReader(MemoryReader):
    """A disk that works for as many reads as it is told, then fails until it is told again."""

    def __init__(self, artifact: Path) -> None:
        super().__init__(artifact)
        self.good: float = float("inf")
        self.error = errno.EIO

    def __call__(self, to: int, size: int, offset: int) -> int:
        self.good -= 1
        return -self.error if self.good < 0 else super().__call__(to, size, offset)
