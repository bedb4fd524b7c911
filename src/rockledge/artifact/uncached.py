"""Reading a file without leaving it in the page cache: direct reads, or buffered ones that are forgotten.

Direct reads (O_DIRECT) go from the disk into memory of the caller, in whole blocks. Some file systems and
sandboxes refuse them: then every part is dropped from the cache once it was read.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from rockledge.errors import ArtifactError, DiskError

BLOCK = 4096
"""Bytes that direct reads are aligned to, in the file and in memory: no disk in use has larger blocks."""
OF_THE_DISK = frozenset({errno.EIO, errno.EREMOTEIO, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT})
"""Errors of a read that say nothing about the file: the disk failed, or is not there now."""
_PART = 4 << 20  # bytes of a part


class UncachedFile:
    """A file that is open for such reads. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises DiskError when it cannot be opened and read."""
        self.path = path
        self.buffered_because: str | None = None
        """Why reads are not direct ones, None where they are."""
        try:
            self.descriptor = self._opened()
            self.bytes = os.fstat(self.descriptor).st_size
        except OSError as error:
            raise disk_error(path, error.errno or 0) from error

    def _opened(self) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            opened = os.open(self.path, flags | os.O_DIRECT)
        except OSError as error:
            self.buffered_because = (error.strerror or str(error)).lower()
        else:
            try:
                with mmap.mmap(-1, BLOCK) as block:
                    os.preadv(opened, [block], 0)
                return opened
            except OSError as error:
                os.close(opened)
                if error.errno in OF_THE_DISK:
                    raise
                self.buffered_because = (error.strerror or str(error)).lower()
        opened = os.open(self.path, flags)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_RANDOM)  # reading ahead is for whoever asks
        return opened

    @property
    def direct(self) -> bool:
        """Whether reads are direct ones."""
        return self.buffered_because is None

    def parts(self, begin: int, end: int) -> Iterator[memoryview]:
        """The bytes begin .. end - 1, part by part; a part is valid until the next one is asked for.

        Raises DiskError, and ArtifactError where the file ends too early.
        """
        first = begin // BLOCK * BLOCK
        memory = memoryview(mmap.mmap(-1, max(BLOCK, min(_PART, -(-(end - first) // BLOCK) * BLOCK))))
        while first < end:
            size = min(len(memory), -(-(end - first) // BLOCK) * BLOCK)
            self._read(memory[:size], first, min(end, first + size))
            yield memory[max(begin - first, 0) : min(end - first, size)]
            first += size

    def _read(self, into: memoryview, begin: int, end: int) -> None:
        done = 0
        while begin + done < end:
            try:
                got = os.preadv(self.descriptor, [into[done:]], begin + done)
            except OSError as error:
                raise disk_error(self.path, error.errno or 0) from error
            if begin + done + got >= end:
                break
            if self.direct:
                got = got // BLOCK * BLOCK  # those go on at a block
            if got == 0:
                raise cut_short(self.path)
            done += got
        if not self.direct:
            os.posix_fadvise(self.descriptor, begin, len(into), os.POSIX_FADV_DONTNEED)

    def forget(self) -> None:
        """Drops what is in the page cache of it, as far as no mapping holds it."""
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Lets the file go."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> "UncachedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def disk_error(path: Path, number: int) -> DiskError:
    """What is said when a read of `path` fails with this errno."""
    return DiskError(f"{path} cannot be read ({os.strerror(number).lower()}); check the disk, then try again")


def cut_short(path: Path) -> ArtifactError:
    """What is said when `path` ends before its tensors do."""
    return ArtifactError(f"{path} was cut short while in use; fetch the artifact again")
