"""Prefixes that leave the cache go to a directory, and come back when a prompt begins with them.

Nothing here waits for the disk: pages are copied out as they are evicted, and a sequence that waits for pages
is looked at again in a later step. Only one of them has pages on the way at a time.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rockledge.runtime.kv_cache import CacheFullError, PageCache
from rockledge.runtime.prefix import NONE, Name, PrefixCache
from rockledge.runtime.prefix_store import PrefixStore

UInt8 = npt.NDArray[np.uint8]

AT_ONCE = 8
"""Pages of tokens that are read from the directory at a time: what is held besides the cache."""
LATE_S = 5.0
"""A disk that takes longer for them hangs; requests go on without it."""
_CLOSING_S = 20.0  # what writing may take when the engine is closed


class Pages(Protocol):
    """Access to the bytes of cache pages; `Executor` has it."""

    def page_bytes(self, pool: int) -> int: ...
    def read_page(self, pool: int, page: int, out: UInt8) -> None: ...
    def write_page(self, pool: int, page: int, data: UInt8) -> None: ...


class ColdPrefixes:
    """The way between the pages of `prefixes` in `cache` and `store`."""

    def __init__(self, prefixes: PrefixCache, cache: PageCache, pages: Pages, store: PrefixStore) -> None:
        self._prefixes = prefixes
        self._cache = cache
        self._pages = pages
        self._store = store
        self._on_the_way: dict[str, _Return] = {}
        self._reading: _Return | None = None
        self._ends: float | None = None  # when closing has to be over
        prefixes.evicted = self._keep

    def _keep(self, name: Name, pool: int, page: int) -> None:
        if self._store.has(name, pool):
            return
        data = np.empty(self._pages.page_bytes(pool), np.uint8)
        self._pages.read_page(pool, page, data)
        if not self._store.put(name, pool, data) and self._ends is not None:
            self._store.flush(max(0.0, self._ends - time.monotonic()))
            self._store.put(name, pool, data)

    def awaited(self, request: str, names: Sequence[Name], tokens: npt.NDArray[np.int32], found: int) -> bool:
        """Whether pages are on their way that would lengthen the `found` full pages of a request's prompt.

        `names` are those of all its full pages. Asked again, it moves on what has arrived; a request is
        served once."""
        there = self._on_the_way.get(request)
        if there is None:
            there = _Return(names, tokens, self._longer(names, found))
            self._on_the_way[request] = there
        if self._reading is not None and self._reading.future.done():
            self._arrived(self._reading)
            self._reading = None
        if self._reading is None and there.left:
            self._ask(there)
        if self._reading is not None and time.monotonic() - self._reading.asked > LATE_S:
            return False
        return bool(there.left) or self._reading is there

    def _ask(self, there: "_Return") -> None:
        there.now, there.left = there.left[:AT_ONCE], there.left[AT_ONCE:]
        self._prefixes.use(there.names[: there.now[0][0]])
        there.future = self._store.fetch(
            [(there.names[number], pool) for number, pools in there.now for pool in pools]
        )
        there.asked = time.monotonic()
        self._reading = there

    def forget(self, request: str) -> None:
        """The request has been admitted, or has ended."""
        there = self._on_the_way.pop(request, None)
        if there is not None:
            there.now, there.left = [], []

    def wait(self, seconds: float) -> None:
        """Until something arrives, at most so long; at once if nothing is on its way."""
        if self._reading is not None:
            wait([self._reading.future], seconds)

    def close(self) -> None:
        """Everything that can be found in the cache goes to the directory."""
        self._ends = time.monotonic() + _CLOSING_S
        self._prefixes.clear()
        self._store.flush(max(0.0, self._ends - time.monotonic()))
        self._store.close()

    def _longer(self, names: Sequence[Name], found: int) -> list[tuple[int, list[int]]]:
        """The pages after the first `found` that are in the directory: number, and pools that need it."""
        whole = [number for number, pool in enumerate(self._cache.pools) if not pool.window]
        end, has = found, self._store.has
        while end < len(names) and all(has(names[end], pool) for pool in whole or [0]):
            end += 1
        size = self._cache.page_tokens
        firsts = [pool.first_page(end * size, size) for pool in self._cache.pools]
        return [
            (number, [p for p, first in enumerate(firsts) if number >= first and has(names[number], p)])
            for number in range(found, end)
        ]

    def _arrived(self, there: "_Return") -> None:
        """Puts pages into the cache; where one is missing or finds no room, no more are asked for."""
        data = iter(there.future.result())
        for number, pools in there.now:
            pages = [next(data) for _ in pools]
            counts = [int(pool in pools) for pool in range(len(self._cache.pools))]
            whole = [page for page in pages if page is not None]
            taken = self._taken(counts) if len(whole) == len(pages) else None
            if taken is None:
                there.left = []
                return
            for pool, page in zip(pools, whole, strict=True):
                self._pages.write_page(pool, taken[pool][0], page)
            placed = [part[0] if part else NONE for part in taken]
            self._prefixes.put(there.names, there.tokens, number, placed)

    def _taken(self, counts: list[int]) -> list[list[int]] | None:
        try:
            return self._cache.take(counts)
        except CacheFullError:
            return None


class _Return:
    """Pages of one request on their way back: those that are left, those asked for now."""

    def __init__(
        self, names: Sequence[Name], tokens: npt.NDArray[np.int32], left: list[tuple[int, list[int]]]
    ) -> None:
        self.names = names
        self.tokens = tokens
        self.left = left
        self.now: list[tuple[int, list[int]]] = []
        self.future: Future[list[UInt8 | None]] = Future()
        self.asked = 0.0
