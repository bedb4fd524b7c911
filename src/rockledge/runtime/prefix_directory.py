"""A directory of pages of bounded size, least recently used out first.

A page is written under a temporary name and renamed, so it is there whole or not at all. Nothing is flushed
with fsync: after a power failure a page may be missing or torn, which its check finds, and a sync of every
page would wear the disk. The times of modification keep the order of use over restarts. One process at a
time has the directory, by a lock that ends with the process. Files that are not pages are left alone and not
counted.
"""

import errno
import fcntl
import logging
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from rockledge.runtime.prefix_page import FILE, HEADER_BYTES, Bytes, PageKey, header, read

log = logging.getLogger(__name__)

PARTIAL = ".rockledge-page.partial"
_BLOCK_BYTES = 4096  # of the usual file systems
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # in this process: the page is as good as before


def file_bytes(data_bytes: int) -> int:
    """What the file of a page takes on the disk: whole blocks."""
    return _whole_blocks(HEADER_BYTES + data_bytes)


class PageDirectory:
    """The pages in `path`, which must exist; those of all models share the bound. OSError where it cannot be
    read, another process has it, or every user may write there.

    `has`, `read` and `touch` may be called from any thread, the others from one. What changes the directory
    raises OSError, apart from `close`.
    """

    def __init__(self, path: Path) -> None:
        self._lock = Lock()  # of all that follows, never held while the disk works
        self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _take(self._descriptor)
            found = sorted(_pages(self._descriptor))
        except BaseException:
            os.close(self._descriptor)
            raise
        self._sizes = OrderedDict((file, size) for _, file, size in found)  # least recently used first
        self._bytes = sum(self._sizes.values())
        self._last_use = max((used for used, _, _ in found), default=0)  # nanoseconds; the clock may go back

    @property
    def bytes(self) -> int:
        """Bytes of all pages."""
        return self._bytes

    def has(self, key: PageKey) -> bool:
        """Whether the page is there, from memory."""
        return key.file in self._sizes

    def read(self, key: PageKey) -> Bytes | None:
        """The page's data, uint8, or None: it is not there, or it was damaged and is removed."""
        try:
            with self._lock:
                if key.file not in self._sizes or self._descriptor is None:
                    return None
                directory = os.dup(self._descriptor)  # it may be closed meanwhile
            try:
                return self._read(directory, key)
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                self._forget(key.file)
            return None

    def _read(self, directory: int, key: PageKey) -> Bytes | None:
        file = os.open(key.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            data = read(file, key)
        finally:
            os.close(file)
        if data is None:
            log.info("a damaged page of a prefix is removed: %s", key.file)
            os.unlink(key.file, dir_fd=directory)
            self._forget(key.file)
        return data

    def touch(self, keys: Sequence[PageKey]) -> list[tuple[str, int]]:
        """Marks pages as used, the first of them last; (file, time in ns) for `write_uses`."""
        with self._lock:
            return [(key.file, self._use(key.file)) for key in reversed(keys) if key.file in self._sizes]

    def _use(self, file: str) -> int:
        self._last_use = max(time.time_ns(), self._last_use + 1)
        self._sizes.move_to_end(file)
        return self._last_use

    def write_uses(self, uses: Sequence[tuple[str, int]]) -> None:
        """Keeps what `touch` returned in the files' times. A file that is gone, or cannot be changed, is
        passed over: the order alone is not worth a word."""
        for file, use in uses if self._descriptor is not None else ():
            with suppress(OSError):
                os.utime(file, ns=(use, use), dir_fd=self._descriptor, follow_symlinks=False)

    def write(self, key: PageKey, data: Bytes) -> None:
        """Stores a page that is not there; `evict` made room for it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        partial = os.open(PARTIAL, flags, 0o600, dir_fd=self._descriptor)
        try:
            with open(partial, "wb") as stream:
                stream.write(header(key, data))
                stream.write(data.data)
            os.rename(PARTIAL, key.file, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(PARTIAL, dir_fd=self._descriptor)
            raise
        with self._lock:
            self._sizes[key.file] = file_bytes(data.nbytes)
            self._bytes += self._sizes[key.file]
        self.write_uses(self.touch([key]))

    def evict(self, limit: int) -> None:
        """Removes the least recently used pages until they take at most `limit` bytes, and what a killed
        process left half-written."""
        self._unlink(PARTIAL)
        while self._bytes > limit and self._sizes:
            with self._lock:
                file = next(iter(self._sizes), "")
            if file:
                self._unlink(file)
                self._forget(file)

    def _unlink(self, file: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(file, dir_fd=self._descriptor)

    def _forget(self, file: str) -> None:
        with self._lock:
            self._bytes -= self._sizes.pop(file, 0)

    def close(self) -> None:
        """Gives the directory back; nothing is found any more. Twice is allowed."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            self._sizes.clear()
            self._bytes = 0
        if descriptor is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # `read` may have a copy of the descriptor for a moment
            os.close(descriptor)


def _take(descriptor: int) -> None:
    if os.fstat(descriptor).st_mode & stat.S_IWOTH:
        raise OSError(errno.EPERM, "every user may write there, expected a directory of one user")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, "another process uses it, expected a directory for each") from None


def _pages(descriptor: int) -> Iterator[tuple[int, str, int]]:
    """(time of last use, name, bytes) of every page's file."""
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if FILE.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield status.st_mtime_ns, entry.name, _whole_blocks(status.st_size)


def _whole_blocks(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
