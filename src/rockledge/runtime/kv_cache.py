"""Who owns which page of the key/value cache: block tables, reference counts, copy on write.

Only bookkeeping: the bytes live in the native pool, which copies a page when two sequences that
share it are about to differ. Pages are the unit of admission; a request that does not fit changes nothing.
"""

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rockledge.errors import RockledgeError


class CacheFullError(RockledgeError):
    """Fewer free pages than a sequence needs; nothing was taken. A scheduler may retry when others finish."""


class PagePool:
    """A fixed number of pages of `page_tokens` tokens each, and how many sequences hold each of them.

    `copy_page(from_page, to_page)` copies the keys and values of all layers; it is called before a sequence
    writes into a page that others also read. Sequences of a pool may be used from several threads, each of
    them from one at a time.
    """

    def __init__(self, pages: int, page_tokens: int, copy_page: Callable[[int, int], None]) -> None:
        if pages < 1 or page_tokens < 1:
            raise ValueError(f"a pool has {pages} pages of {page_tokens} tokens, expected at least 1 of 1")
        self.pages = pages
        self.page_tokens = page_tokens
        # Re-entrant: a forgotten request may be collected, and give its pages back, under this very lock.
        self.lock = threading.RLock()
        self._copy_page = copy_page
        self._free = list(range(pages - 1, -1, -1))
        self._holders = [0] * pages

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """How many sequences hold `page`."""
        return self._holders[page]

    def open(self) -> "CachedSequence":
        """An empty sequence; it takes no page until it reserves room."""
        return CachedSequence(self, [], 0)

    def _take(self, count: int) -> list[int]:
        if count > len(self._free):
            raise CacheFullError(
                f"the key/value cache has {len(self._free)} free pages of {self.page_tokens} tokens, "
                f"expected at least {count}; let other requests finish, or load with a larger context"
            )
        taken = [self._free.pop() for _ in range(count)]
        for page in taken:
            self._holders[page] = 1
        return taken

    def _hold(self, page: int) -> None:
        self._holders[page] += 1

    def _drop(self, page: int) -> None:
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free.append(page)

    def _copy(self, source: int, target: int) -> None:
        self._copy_page(source, target)


class CachedSequence:
    """The pages of one sequence in order of position, and how many tokens of them are written."""

    def __init__(self, pool: PagePool, pages: list[int], length: int) -> None:
        self._pool = pool
        self._pages = pages
        self.length = length

    @property
    def pages(self) -> tuple[int, ...]:
        """Page i holds the positions from i * page_tokens on."""
        return tuple(self._pages)

    @property
    def capacity(self) -> int:
        """Tokens that fit into the pages already held."""
        return len(self._pages) * self._pool.page_tokens

    def reserve(self, tokens: int) -> bool:
        """Makes room to write `tokens` more; true when the list of pages changed.

        A partly filled last page that others also hold is copied first. CacheFullError changes nothing.
        """
        with self._pool.lock:
            return self._reserve(self._pool, self.length + tokens if tokens > 0 else 0)

    def _reserve(self, pool: PagePool, end: int) -> bool:
        fresh = max(0, -(-end // pool.page_tokens) - len(self._pages))
        first = self.length // pool.page_tokens
        shared = [i for i in range(first, len(self._pages)) if end and pool.holders(self._pages[i]) > 1]
        if not fresh and not shared:
            return False
        taken = pool._take(fresh + len(shared))
        for i in shared:
            page = taken.pop()
            if i * pool.page_tokens < self.length:
                pool._copy(self._pages[i], page)
            pool._drop(self._pages[i])
            self._pages[i] = page
        self._pages.extend(taken)
        return True

    def advance(self, tokens: int) -> None:
        """Notes that `tokens` more positions have been written; they must have been reserved."""
        if self.length + tokens > self.capacity:
            raise ValueError(
                f"{tokens} tokens were written, expected at most the {self.capacity - self.length} reserved"
            )
        self.length += tokens

    def repeat(self, length: int) -> None:
        """Fills up to `length` positions, if there are fewer, with copies of the pages that are there; a
        sequence without any stays as it is."""
        held = len(self._pages)
        if not held or length <= self.length:
            return
        with self._pool.lock:
            self.reserve(length - self.length)
            for number in range(held, len(self._pages)):
                self._pool._copy(self._pages[number % held], self._pages[number])
        self.length = length

    def truncate(self, length: int) -> None:
        """Forgets the positions from `length` on and gives back the pages that held only those."""
        if not 0 <= length <= self.length:
            raise ValueError(f"a sequence is cut to {length} tokens, expected 0 to {self.length}")
        keep = -(-length // self._pool.page_tokens)
        with self._pool.lock:
            for page in self._pages[keep:]:
                self._pool._drop(page)
            del self._pages[keep:]
        self.length = length

    def fork(self) -> "CachedSequence":
        """A second sequence with the same past; both share every page until one of them writes."""
        keep = -(-self.length // self._pool.page_tokens)
        pages = self._pages[:keep]
        with self._pool.lock:
            for page in pages:
                self._pool._hold(page)
        return CachedSequence(self._pool, pages, self.length)

    def write_table(self, row: npt.NDArray[np.int32]) -> None:
        """Writes the block table into the front of `row` (int32 [table width])."""
        row[: len(self._pages)] = self._pages

    def close(self) -> None:
        """Gives all pages back. Closing twice is allowed."""
        with self._pool.lock:
            for page in self._pages:
                self._pool._drop(page)
            self._pages.clear()
        self.length = 0
