"""Prefixes that leave the cache go to a directory, and come back when a prompt begins with them.

Nothing here waits for the disk: pages are copied out as they are evicted, and a sequence that waits for pages
is looked at again in a later step.
"""

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
        self._closing = False
        prefixes.evicted = self._keep

    def _keep(self, name: Name, pool: int, page: int) -> None:
        if self._store.has(name, pool):
            return
        data = np.empty(self._pages.page_bytes(pool), np.uint8)
        self._pages.read_page(pool, page, data)
        if not self._store.put(name, pool, data) and self._closing:
            self._store.flush(_CLOSING_S)
            self._store.put(name, pool, data)

    def awaited(self, request: str, names: Sequence[Name], tokens: npt.NDArray[np.int32], found: int) -> bool:
        """Whether pages are on their way that would lengthen the `found` full pages of a request's prompt.

        `names` are those of all its full pages. Asked again, it moves on what has arrived; a request is
        served once."""
        there = self._on_the_way.get(request)
        if there is None:
            there = self._on_the_way[request] = _Return(self._longer(names, found))
        if there.future is not None:
            if not there.future.done():
                return True
            if not self._arrived(there, names, tokens):
                there.left = []
        there.future = None
        if not there.left:
            return False
        now, there.left = there.left[:AT_ONCE], there.left[AT_ONCE:]
        there.now = now
        pairs = [(names[number], pool) for number, pools in now for pool in pools]
        self._prefixes.use(names[: now[0][0]])
        there.future = self._store.fetch(pairs)
        return True

    def forget(self, request: str) -> None:
        """The request has been admitted, or has ended."""
        self._on_the_way.pop(request, None)

    def wait(self, seconds: float) -> None:
        """Until something arrives, at most so long; at once if nothing is on its way."""
        futures = [there.future for there in self._on_the_way.values() if there.future is not None]
        if futures:
            wait(futures, seconds, "FIRST_COMPLETED")

    def close(self) -> None:
        """Everything that can be found in the cache goes to the directory."""
        self._closing = True
        self._prefixes.clear()
        self._store.flush(_CLOSING_S)
        self._store.close()

    def _longer(self, names: Sequence[Name], found: int) -> list[tuple[int, list[int]]]:
        """The pages after the first `found` that are in the directory: number, and the pools it is needed of."""
        whole = [number for number, pool in enumerate(self._cache.pools) if not pool.window]
        end = found
        while end < len(names) and all(self._store.has(names[end], pool) for pool in whole or [0]):
            end += 1
        size = self._cache.page_tokens
        firsts = [pool.first_page(end * size, size) for pool in self._cache.pools]
        return [
            (
                number,
                [p for p, first in enumerate(firsts) if number >= first and self._store.has(names[number], p)],
            )
            for number in range(found, end)
        ]

    def _arrived(self, there: "_Return", names: Sequence[Name], tokens: npt.NDArray[np.int32]) -> bool:
        """Puts pages into the cache; false where one is missing or finds no room."""
        assert there.future is not None
        data = iter(there.future.result())
        for number, pools in there.now:
            pages = [next(data) for _ in pools]
            if any(page is None for page in pages):
                return False
            counts = [int(pool in pools) for pool in range(len(self._cache.pools))]
            try:
                taken = self._cache.take(counts)
            except CacheFullError:
                return False
            for pool, page in zip(pools, pages, strict=True):
                assert page is not None
                self._pages.write_page(pool, taken[pool][0], page)
            self._prefixes.put(names, tokens, number, [part[0] if part else NONE for part in taken])
        return True



class _Return:
    """Pages of one request on their way back: those that are left, those asked for now."""

    def __init__(self, left: list[tuple[int, list[int]]]) -> None:
        self.left = left
        self.now: list[tuple[int, list[int]]] = []
        self.future: Future[list[UInt8 | None]] | None = None
