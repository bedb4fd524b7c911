"""Prefixes that are in the cache already: full pages found by a hash of their tokens and all before them.

A page is shared by reference: sequences that begin alike hold the same pages, and this cache holds them too
once their sequence has gone, until the room is needed (least recently used first, ends before beginnings). The
last page of a sequence that has ended may be partly filled; one that goes on inside it copies it. In a pool
whose layers have a window only the pages that the next query sees are needed.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.runtime.kv_cache import CachedSequence, PageCache

Int32 = npt.NDArray[np.int32]
Name = bytes
"""The hash of a page: 16 bytes that stand for its tokens, all before them, the model and the cache format."""

Evicted = Callable[[Name, int, int], None]
"""Called with the name of a full page, its pool and its number there, before it is dropped."""

NONE = -1


def page_names(tokens: Int32, page_tokens: int, before: Name, known: Sequence[Name] = ()) -> list[Name]:
    """The names of all full pages of `tokens` int32 [n]; `known` are those of the first ones, `before` is
    what the name of the very first one depends on."""
    names = list(known)
    for number in range(len(names), len(tokens) // page_tokens):
        part = tokens[number * page_tokens : (number + 1) * page_tokens]
        names.append(_name(names[-1] if names else before, part))
    return names


def _name(before: Name, tokens: Int32) -> Name:
    return hashlib.blake2b(before + tokens.tobytes(), digest_size=16).digest()


@dataclass
class _Page:
    """One page of tokens (fewer than a page's where a sequence ended): its number in every pool, or NONE."""

    name: Name
    before: Name
    tokens: Int32
    pages: list[int]


@dataclass(frozen=True)
class Match:
    """The longest beginning that is in the cache: its length in tokens, and the names of its pages."""

    length: int
    pages: tuple[Name, ...]


NOTHING = Match(0, ())


class PrefixCache:
    """The pages of `cache` that can be found again. `root` stands for the model and the format of its pages;
    `evicted` hears of full pages before they are dropped. Not for two threads at once."""

    def __init__(self, cache: PageCache, root: Name) -> None:
        self.root = root
        self._cache = cache
        self._size = cache.page_tokens
        self.evicted: Evicted | None = None
        # Least recently used first; every page comes before the one that it continues.
        self._pages: OrderedDict[Name, _Page] = OrderedDict()
        self._after: dict[Name, set[Name]] = {}
        cache.reclaim = self.reclaim

    def __contains__(self, name: Name) -> bool:
        return name in self._pages

    def cold_pages(self, pool: int) -> int:
        """Pages of `pool` that only this cache holds."""
        holders = self._cache.pools[pool].holders
        return sum(1 for page in self._pages.values() if page.pages[pool] != NONE and holders(page.pages[pool]) == 1)

    def match(self, names: Sequence[Name], tokens: Int32, *, parts: bool = True) -> Match:
        """How much of `tokens` int32 [n] is here, with `parts` also inside a page; `names` are those of its
        full pages."""
        there: list[_Page] = []
        for name in names:
            page = self._pages.get(name)
            if page is None:
                break
            there.append(page)
        length = len(there) * self._size
        part = self._part(there[-1].name if there else self.root, tokens[length:]) if parts else None
        if part is not None and self._whole([*there, part[0]], length + part[1]):
            return Match(length + part[1], tuple(page.name for page in [*there, part[0]]))
        while there and not self._whole(there, len(there) * self._size):
            there.pop()
        return Match(len(there) * self._size, tuple(page.name for page in there))

    def _part(self, before: Name, tokens: Int32) -> tuple[_Page, int] | None:
        """The page after `before` that begins most like `tokens`, and how many tokens they share."""
        best: tuple[_Page, int] | None = None
        for name in self._after.get(before, ()):
            page = self._pages[name]
            count = min(len(page.tokens), len(tokens))
            same = page.tokens[:count] == tokens[:count]
            shared = count if same.all() else int(same.argmin())
            if shared and (best is None or shared > best[1]):
                best = page, shared
        return best

    def _whole(self, there: Sequence[_Page], length: int) -> bool:
        """Whether all that the next query after `length` tokens sees is in the pages `there`."""
        return all(
            page.pages[number] != NONE
            for number, pool in enumerate(self._cache.pools)
            for page in there[pool.first_page(length, self._size) :]
        )

    def resume(self, match: Match) -> CachedSequence:
        """A sequence that begins with what was found."""
        there = [self._pages[name] for name in match.pages]
        self.use(match.pages)
        held = []
        for number, pool in enumerate(self._cache.pools):
            first = pool.first_page(match.length, self._size)
            held.append((first, [page.pages[number] for page in there[first:]]))
        return self._cache.resume(held, match.length)

    def add(self, names: Sequence[Name], tokens: Int32, sequence: CachedSequence, first: int) -> None:
        """Keeps the full pages of `sequence` from number `first` on, as far as it still holds them; `names`
        are those of all its full pages, `tokens` int32 its tokens."""
        for number in range(first, len(names)):
            before = names[number - 1] if number else self.root
            part = tokens[number * self._size : (number + 1) * self._size]
            self._keep(names[number], before, part, sequence, number)
        self.use(names)

    def add_end(self, names: Sequence[Name], tokens: Int32, sequence: CachedSequence) -> None:
        """Keeps the last, partly filled page of a sequence that ends; it must not write any more."""
        full = len(names) * self._size
        part = tokens[full : sequence.length]
        if len(part) == 0 or (names and names[-1] not in self._pages):
            return
        before = names[-1] if names else self.root
        name = _name(before, part)
        self._keep(name, before, part, sequence, len(names))
        self.use([*names, name])

    def _keep(self, name: Name, before: Name, tokens: Int32, sequence: CachedSequence, number: int) -> None:
        page = self._pages.get(name)
        if page is None:
            page = _Page(name, before, tokens.copy(), [NONE] * len(self._cache.pools))
            self._pages[name] = page
            self._after.setdefault(before, set()).add(name)
        for pool, found in enumerate(page.pages):
            held = sequence.page(pool, number)
            if found == NONE and held is not None:
                self._cache.pools[pool].hold(held)
                page.pages[pool] = held
        if all(number == NONE for number in page.pages):
            self._forget(page)

    def use(self, names: Sequence[Name]) -> None:
        """Marks pages as used last, the first of them as the last to go."""
        for name in reversed(names):
            if name in self._pages:
                self._pages.move_to_end(name)

    def reclaim(self, pool: int, count: int) -> None:
        """Gives back at least `count` pages of `pool` that nobody else holds, or none if there are fewer."""
        holders = self._cache.pools[pool].holders
        found = []
        for page in self._pages.values():
            if page.pages[pool] != NONE and holders(page.pages[pool]) == 1:
                found.append(page)
                if len(found) == count:
                    break
        else:
            return
        for page in found:
            self._drop(page, pool)

    def _drop(self, page: _Page, pool: int) -> None:
        """Gives a page of one pool back; of all pools where nothing can be found without it."""
        needed = self._cache.pools[pool].window == 0
        for number in range(len(page.pages)) if needed else (pool,):
            if page.pages[number] == NONE:
                continue
            if self.evicted is not None and len(page.tokens) == self._size:
                self.evicted(page.name, number, page.pages[number])
            self._cache.pools[number].drop(page.pages[number])
            page.pages[number] = NONE
        if all(number == NONE for number in page.pages):
            self._forget(page)

    def _forget(self, page: _Page) -> None:
        del self._pages[page.name]
        after = self._after[page.before]
        after.discard(page.name)
        if not after:
            del self._after[page.before]

    def put(self, names: Sequence[Name], tokens: Int32, number: int, pages: Sequence[int]) -> None:
        """Keeps pages that were read from elsewhere: of full page `number` of `tokens`, one of every pool or
        NONE. They are this cache's from now on."""
        before = names[number - 1] if number else self.root
        if names[number] in self._pages:
            for pool, page in zip(self._cache.pools, pages, strict=True):
                if page != NONE:
                    pool.drop(page)
            return
        part = tokens[number * self._size : (number + 1) * self._size].copy()
        self._pages[names[number]] = _Page(names[number], before, part, list(pages))
        self._after.setdefault(before, set()).add(names[number])
        self.use(names)

    def clear(self) -> None:
        """Gives everything back, the ends first."""
        for page in list(self._pages.values()):
            for pool in range(len(page.pages)):
                if page.name in self._pages and page.pages[pool] != NONE:
                    self._drop(page, pool)
