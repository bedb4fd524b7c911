"""Cold prefixes: pages of the key/value cache that left memory, in a directory, found again after a restart.

The caller never waits for the disk: one thread writes pages, another reads them, and what is there is known
in memory. Whatever is wrong with a page makes it a miss. Whatever is wrong with the directory makes the store
quiet for a while, after one warning; no request ever fails for it.
"""

import errno
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from rockledge.runtime.prefix_directory import PageDirectory, file_bytes
from rockledge.runtime.prefix_page import NAME_BYTES, Bytes, PageKey

log = logging.getLogger(__name__)

QUEUE_BYTES = 32 << 20  # of pages that wait to be written, or one larger page; a memory plan counts them
RETRY_S = 60.0
_FULL = {errno.ENOSPC, errno.EDQUOT}

Pages = Sequence[tuple[bytes, int]]
"""(name, pool) of pages, in the order of the text."""


class PrefixStore:
    """Pages in `directory`, of at most `limit_bytes` in whole blocks, those of other models included.

    `identity` (any length) stands for the model and the format of its pages. A page has a name of 16 bytes
    and the number of a pool. A missing directory is made for this user alone, as its files are: prefixes are
    users' texts. After a failure nothing is written for `retry_s` seconds, then the directory is opened anew.
    All methods may be called from any thread, and none raises for what is wrong with the disk.
    """

    def __init__(
        self, directory: Path, limit_bytes: int, identity: bytes, *, retry_s: float = RETRY_S
    ) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.written_bytes = 0  # to the disk, since the start
        self._identity = blake2b(identity, digest_size=NAME_BYTES).digest()
        self._retry_s = retry_s
        self._lock = Lock()  # of all that follows, never held while the disk works
        self._pages: PageDirectory | None = None
        self._queue: dict[PageKey, Bytes] = {}
        self._queued_bytes = 0
        self._quiet_until: float | None = None  # None: nothing has failed since the directory was opened
        self._warned: set[str] = set()
        self._closed = False
        self._writer = ThreadPoolExecutor(1, "prefix-writer")
        self._reader = ThreadPoolExecutor(1, "prefix-reader")
        with self._quiet_after_failure():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()

    @property
    def stored_bytes(self) -> int:
        """Bytes of all pages in the directory, in whole blocks."""
        pages = self._pages
        return pages.bytes if pages else 0

    def has(self, name: bytes, pool: int) -> bool:
        """Whether the page is stored or about to be; `get` may still miss it."""
        key = PageKey(self._identity, name, pool)
        with self._lock:
            return key in self._queue or (self._pages is not None and self._pages.has(key))

    def put(self, name: bytes, pool: int, data: Bytes) -> bool:
        """Copies `data` (uint8) to be written soon; false where it is not going to be: the queue is full, the
        page is larger than the limit, or the store is quiet. A page that is there already counts as used."""
        if self.has(name, pool):
            self.touch([(name, pool)])
            return True
        key = PageKey(self._identity, name, pool)
        if file_bytes(data.nbytes) > self.limit_bytes:
            return False
        with self._lock:
            full = self._queue and self._queued_bytes + data.nbytes > QUEUE_BYTES
            if self._closed or full or not self._due():
                return False
            if key not in self._queue:
                self._queue[key] = data.flatten()
                self._queued_bytes += data.nbytes
                self._writer.submit(self._write, key)
        return True

    def get(self, name: bytes, pool: int) -> Bytes | None:
        """The page's data, uint8, read now; None for a miss. It counts as used."""
        data = self._read(PageKey(self._identity, name, pool))
        self.touch([(name, pool)])
        return data

    def _read(self, key: PageKey) -> Bytes | None:
        with self._lock:
            if self._closed:
                return None
            if key in self._queue:
                return self._queue[key].copy()
            pages = self._pages
        return pages.read(key) if pages else None

    def fetch(self, names: Pages) -> "Future[list[Bytes | None]]":
        """Reads pages in another thread, as `get` does; all of them are in memory at once."""
        with self._lock:
            if not self._closed:
                return self._reader.submit(self._fetch, names)
        missing: Future[list[Bytes | None]] = Future()
        missing.set_result([None] * len(names))
        return missing

    def _fetch(self, names: Pages) -> list[Bytes | None]:
        found = [self._read(PageKey(self._identity, *name)) for name in names]
        self.touch(names)
        return found

    def touch(self, names: Pages) -> None:
        """Marks pages as used. The first of them goes last: without it the others would never be found."""
        keys = [PageKey(self._identity, *name) for name in names]
        with self._lock:
            if self._pages and not self._closed and (uses := self._pages.touch(keys)):
                self._writer.submit(self._pages.write_uses, uses)

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all that was put is written, `timeout` seconds at most; whether that is so."""
        with self._lock:
            if self._closed:
                return False
            last = self._writer.submit(lambda: None)
        return last in wait([last], timeout).done

    def close(self) -> None:
        """Ends both threads after the page that each has in hand; what waits to be written is lost unless
        `flush` was called. Nothing is found any more. Twice is allowed."""
        with self._lock:
            self._closed = True
        self._writer.shutdown()
        self._reader.shutdown()
        if self._pages:
            self._pages.close()

    def _due(self) -> bool:
        return self._quiet_until is None or time.monotonic() >= self._quiet_until

    @contextmanager
    def _quiet_after_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._warn(error)
            self._quiet_until = time.monotonic() + self._retry_s

    def _warn(self, error: OSError) -> None:
        """Once for each kind of failure."""
        reason = (error.strerror or str(error)).lower()
        if reason not in self._warned:
            self._warned.add(reason)
            log.warning("cold prefixes cannot be written to %s: %s", self.directory, reason)

    def _open(self) -> None:
        if self._pages:
            self._pages.close()
        self._pages = PageDirectory(self.directory)
        self._pages.evict(self.limit_bytes)  # where that fails its pages can still be read
        self._quiet_until = None

    def _write(self, key: PageKey) -> None:
        data = self._queue[key]
        try:
            with self._quiet_after_failure():
                if not self._closed and self._due():
                    if self._quiet_until is not None:
                        self._open()
                    if self._pages and not self._pages.has(key):
                        self._store(self._pages, key, data)
        finally:
            with self._lock:
                del self._queue[key]
                self._queued_bytes -= data.nbytes

    def _store(self, pages: PageDirectory, key: PageKey, data: Bytes) -> None:
        size = file_bytes(data.nbytes)
        pages.evict(self.limit_bytes - size)
        try:
            pages.write(key, data)
        except OSError as error:
            if error.errno not in _FULL or pages.bytes == 0:
                raise
            # Others have filled the disk: older pages make way for this one, if that is enough.
            pages.evict(pages.bytes - size)
            pages.write(key, data)
        self.written_bytes += size
