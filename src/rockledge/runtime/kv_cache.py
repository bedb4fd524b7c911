"""Who owns which page of the key/value cache: block tables, reference counts, copy on write.

Only bookkeeping: the bytes live in the native pools, which copy a page when two sequences that share it are
about to differ. Pages are the unit of admission; a request that does not fit changes nothing. The layers of
one window share a pool; a sequence has pages in every pool, and gives those back that its window has passed.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rockledge.board.memory import window_pages
from rockledge.errors import RockledgeError


class CacheFullError(RockledgeError):
    """Fewer free pages than a sequence needs; nothing was taken. A scheduler may retry when others finish."""


class WindowPassedError(RockledgeError):
    """A sequence cannot be cut to where a window has given pages back. Cut it to 0 and read it again."""


class PagePool:
    """A fixed number of pages of the layers with one `window` (0: none), and how many sequences hold each of
    them."""

    def __init__(self, pages: int, window: int) -> None:
        self.pages = pages
        self.window = window
        self._free = list(range(pages - 1, -1, -1))
        self._holders = [0] * pages

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """How many sequences hold `page`."""
        return self._holders[page]

    def first_page(self, length: int, page_tokens: int) -> int:
        """The number of the first page that a query after `length` tokens sees."""
        return max(0, length + 1 - self.window) // page_tokens if self.window else 0

    def take(self, count: int) -> list[int]:
        """`count` free pages, for one sequence each; there must be so many."""
        taken = [self._free.pop() for _ in range(count)]
        for page in taken:
            self._holders[page] = 1
        return taken

    def hold(self, page: int) -> None:
        """One sequence more holds `page`."""
        self._holders[page] += 1

    def drop(self, page: int) -> None:
        """One sequence fewer holds `page`."""
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free.append(page)


class Reclaim(Protocol):
    """What holds pages that it can do without."""

    def __call__(self, pool: int, count: int) -> None:
        """Drops at least `count` pages of `pool` that nobody else holds, or none where it has fewer."""


class PageCache:
    """The pools of a program, by its numbers: (window, pages) of each; pages of `page_tokens` tokens.

    `reclaim`, when set, is asked for pages before a sequence is refused any.
    `copy_page(pool, from_page, to_page)` copies the keys and values of the pool's layers; it is called before
    a sequence writes into a page that others also read. Sequences of a cache may be used from several
    threads, each of them from one at a time.
    """

    def __init__(
        self,
        pools: Sequence[tuple[int, int]],
        page_tokens: int,
        copy_page: Callable[[int, int, int], None],
    ) -> None:
        for _, pages in pools:
            if pages < 1 or page_tokens < 1:
                raise ValueError(
                    f"a pool has {pages} pages of {page_tokens} tokens, expected at least 1 of 1"
                )
        self.pools = tuple(PagePool(pages, window) for window, pages in pools)
        self.page_tokens = page_tokens
        self.copy_page = copy_page
        self.reclaim: Reclaim | None = None
        # Re-entrant, because `reclaim` and `copy_page` are called under it.
        self.lock = threading.RLock()

    @property
    def pages(self) -> int:
        """Pages of all pools."""
        return sum(pool.pages for pool in self.pools)

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds, of all pools."""
        return sum(pool.free_pages for pool in self.pools)

    def open(self) -> "CachedSequence":
        """An empty sequence; it takes no page until it reserves room."""
        return CachedSequence(self, [_Held(number, pool) for number, pool in enumerate(self.pools)], 0)

    def resume(self, held: Sequence[tuple[int, Sequence[int]]], length: int) -> "CachedSequence":
        """A sequence whose first `length` tokens are in pages that are there: of every pool the number of the
        first page that is needed, and the pages from there on. They are shared, and copied before it writes
        into the last one."""
        with self.lock:
            parts = [
                _Held(number, pool, first, list(pages))
                for number, (pool, (first, pages)) in enumerate(zip(self.pools, held, strict=True))
            ]
            for part in parts:
                for page in part.pages:
                    part.pool.hold(page)
        return CachedSequence(self, parts, length)

    def take(self, counts: Sequence[int]) -> list[list[int]]:
        """So many pages of every pool. CacheFullError if one has fewer; then none is taken."""
        if self.reclaim is not None:
            for number, (pool, count) in enumerate(zip(self.pools, counts, strict=True)):
                if count > pool.free_pages:
                    self.reclaim(number, count - pool.free_pages)
        for pool, count in zip(self.pools, counts, strict=True):
            if count > pool.free_pages:
                where, larger = "", ", or load with a larger context"
                if pool.window:
                    where, larger = f" of the layers with a window of {pool.window} tokens", ""
                raise CacheFullError(
                    f"the key/value cache{where} has {pool.free_pages} free pages of "
                    f"{self.page_tokens} tokens, expected at least {count}; let other requests finish{larger}"
                )
        return [pool.take(count) for pool, count in zip(self.pools, counts, strict=True)]


@dataclass
class _Held:
    """What a sequence holds of pool `number`: page `pages[i]` has the positions from (`first` + i) *
    page_tokens on. With a window `first` is the page where the next query's begins."""

    number: int
    pool: PagePool
    first: int = 0
    pages: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.pages)


class CachedSequence:
    """The pages of one sequence in order of position, and how many tokens of them are written."""

    def __init__(self, cache: PageCache, held: list[_Held], length: int) -> None:
        self._cache = cache
        self._held = held
        self._reserved = length  # positions that there is or will be room for
        self._moved = False  # a list of pages changed since `reserve` last said so
        self.length = length

    @property
    def pages(self) -> tuple[tuple[int, ...], ...]:
        """The pages held of each pool; their first is the one where the next query's window begins."""
        return tuple(tuple(held.pages) for held in self._held)

    def page(self, pool: int, number: int) -> int | None:
        """The page in `pool` of tokens `number` * page_tokens on; None where it is not held (any more)."""
        held = self._held[pool]
        return held.pages[number - held.first] if held.first <= number < held.end else None

    @property
    def shortest(self) -> int:
        """It can be cut to this length or a longer one, or to 0: what a query there sees is whole."""
        size = self._cache.page_tokens
        return max(held.first * size + held.pool.window - 1 if held.first else 0 for held in self._held)

    @property
    def capacity(self) -> int:
        """Tokens that fit into the pages already held."""
        return min(held.end for held in self._held) * self._cache.page_tokens

    def reserve(self, tokens: int, rows: int | None = None) -> bool:
        """Makes room to write `tokens` more, at most `rows` (None: all) between calls of `advance`; true when
        a list of pages changed since the last call.

        A window takes no more pages than that needs at a time, and moves them on. What was reserved stays so
        unless the sequence forks. A partly filled last page that others also hold is copied first.
        CacheFullError changes nothing.
        """
        if self.length + tokens > min(self._reserved, self.capacity):
            with self._cache.lock:
                self._reserve(tokens, min(tokens, rows or tokens))
        moved, self._moved = self._moved, False
        return moved

    def _reserve(self, tokens: int, rows: int) -> None:
        size, end = self._cache.page_tokens, self.length + tokens
        counts, shared = [], []
        for held in self._held:
            last, written = _pages(end, size), max(0, self.length // size - held.first)
            if window := held.pool.window:
                # A page that others hold too is given back when the window has passed it, not moved on.
                kept = sum(held.pool.holders(page) > 1 for page in held.pages[:written])
                last = min(last, held.first + window_pages(window, rows, size) + kept)
            several = [i for i in range(written, len(held.pages)) if held.pool.holders(held.pages[i]) > 1]
            counts.append(max(0, last - held.end) + len(several))
            shared.append(several)
        taken = self._cache.take(counts)
        for held, several, fresh in zip(self._held, shared, taken, strict=True):
            self._moved |= bool(fresh)
            for i in several:
                page = fresh.pop()
                if (held.first + i) * size < self.length:
                    self._cache.copy_page(held.number, held.pages[i], page)
                held.pool.drop(held.pages[i])
                held.pages[i] = page
            held.pages.extend(fresh)
        self._reserved = max(self._reserved, _pages(end, size) * size)

    def advance(self, tokens: int) -> None:
        """Notes that `tokens` more positions have been written; they must have been reserved. Pages that no
        window will see again are given back, or moved on to positions that are reserved."""
        if self.length + tokens > self.capacity:
            raise ValueError(
                f"{tokens} tokens were written, expected at most the {self.capacity - self.length} reserved"
            )
        self.length += tokens
        until = _pages(self._reserved, self._cache.page_tokens)
        for held in self._held:
            first = self._first(held.pool)
            while held.first < first:
                with self._cache.lock:
                    page = held.pages.pop(0)
                    held.first += 1
                    if held.end < until and held.pool.holders(page) == 1:
                        held.pages.append(page)
                        self._moved = True
                    else:
                        held.pool.drop(page)

    def _first(self, pool: PagePool) -> int:
        return pool.first_page(self.length, self._cache.page_tokens)

    def repeat(self, length: int) -> None:
        """Fills up to `length` positions, if there are fewer, with copies of the pages that are there; a
        sequence without any stays as it is."""
        if self.length == 0 or length <= self.length:
            return
        before, last = self.length, _pages(length, self._cache.page_tokens)
        with self._cache.lock:
            self.length = length
            firsts = [self._first(held.pool) for held in self._held]
            wanted = [last - first for first in firsts]
            try:
                counts = (max(0, n - len(held.pages)) for n, held in zip(wanted, self._held, strict=True))
                taken = self._cache.take(list(counts))
            except CacheFullError:
                self.length = before
                raise
            for held, first, count, fresh in zip(self._held, firsts, wanted, taken, strict=True):
                there = tuple(held.pages)
                for number, page in enumerate(fresh, len(there)):
                    if there:
                        self._cache.copy_page(held.number, there[number % len(there)], page)
                for page in there[count:]:
                    held.pool.drop(page)
                held.first, held.pages = first, [*there[:count], *fresh]
        self._reserved, self._moved = max(self._reserved, length), True

    def truncate(self, length: int) -> None:
        """Forgets the positions from `length` on and gives back the pages that held only those.

        Raises WindowPassedError, and changes nothing, where `length` is not 0 and below `shortest`.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"a sequence is cut to {length} tokens, expected 0 to {self.length}")
        if 0 < length < self.shortest:
            raise WindowPassedError(
                f"a sequence of {self.length} tokens cannot be cut to {length}, expected at least "
                f"{self.shortest}, because pages before its window were given back; read its tokens again"
            )
        end = _pages(length, self._cache.page_tokens)
        with self._cache.lock:
            for held in self._held:
                keep = max(0, end - held.first)
                for page in held.pages[keep:]:
                    held.pool.drop(page)
                del held.pages[keep:]
                if length == 0:
                    held.first = 0
        self.length = self._reserved = length

    def fork(self) -> "CachedSequence":
        """A second sequence with the same past; both share every page until one of them writes."""
        end = _pages(self.length, self._cache.page_tokens)
        with self._cache.lock:
            held = [replace(h, pages=h.pages[: max(0, end - h.first)]) for h in self._held]
            for h in held:
                for page in h.pages:
                    h.pool.hold(page)
        self._reserved = self.length  # what it has room in is shared now
        return CachedSequence(self._cache, held, self.length)

    def write_table(self, rows: npt.NDArray[np.int32]) -> None:
        """Writes the block table of every pool into `rows` (int32 [pools, table width]), where there are
        pages: entries before a window stay as they are."""
        for row, held in zip(rows, self._held, strict=True):
            row[held.first : held.end] = held.pages

    def close(self) -> None:
        """Gives all pages back. Closing twice is allowed."""
        self.truncate(0)


def _pages(tokens: int, size: int) -> int:
    return -(-tokens // size)
