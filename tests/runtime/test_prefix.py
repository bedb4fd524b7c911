"""Prefixes in the page cache: what is found is what was written, and room is given back from the ends."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.runtime.kv_cache import CachedSequence, PageCache
from rockledge.runtime.prefix import NOTHING, PrefixCache, page_names

SIZE = 8


class Written:
    """A cache whose pages hold the tokens that were written, so that what is found can be compared."""

    def __init__(self, pools: Sequence[tuple[int, int]]) -> None:
        self.content = [np.full((pages, SIZE), -1) for _, pages in pools]
        self.cache = PageCache(pools, SIZE, self.copy)
        self.prefixes = PrefixCache(self.cache, b"a model")

    def copy(self, pool: int, source: int, target: int) -> None:
        self.content[pool][target] = self.content[pool][source]

    def write(self, tokens: np.ndarray, sequence: CachedSequence) -> None:
        """The rest of `tokens`, in steps of a page."""
        while sequence.length < len(tokens):
            count = min(SIZE, len(tokens) - sequence.length)
            sequence.reserve(count)
            for position in range(sequence.length, sequence.length + count):
                for pool, content in enumerate(self.content):
                    page = sequence.page(pool, position // SIZE)
                    assert page is not None
                    content[page, position % SIZE] = tokens[position]
            sequence.advance(count)

    def ask(self, tokens: np.ndarray) -> int:
        """Reads `tokens` as an engine does; returns how many of them were found."""
        names = page_names(tokens, SIZE, self.prefixes.root)
        within = tokens[: len(tokens) - 1]
        match = self.prefixes.match(names[: len(within) // SIZE], within)
        sequence = self.prefixes.resume(match)
        for pool, held in enumerate(self.cache.pools):
            for position in range(held.first_page(match.length, SIZE) * SIZE, match.length):
                page = sequence.page(pool, position // SIZE)
                assert page is not None
                assert self.content[pool][page, position % SIZE] == tokens[position]
        self.write(tokens, sequence)
        self.prefixes.add(names, tokens, sequence, 0)
        self.prefixes.add_end(names, tokens, sequence)
        sequence.close()
        return match.length

    def check(self) -> None:
        """Every page is free or cold when nobody runs."""
        for number, pool in enumerate(self.cache.pools):
            assert pool.free_pages + self.prefixes.cold_pages(number) == pool.pages


texts = st.lists(st.integers(0, 1), min_size=1, max_size=60).map(lambda ids: np.array(ids, np.int32))


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=12), st.sampled_from([((0, 9),), ((0, 9), (10, 9)), ((12, 9),)]))
def test_what_is_found_is_what_was_written(
    asked: list[np.ndarray], pools: tuple[tuple[int, int], ...]
) -> None:
    written = Written(pools)
    for tokens in asked:
        found = written.ask(tokens)
        assert 0 <= found < max(len(tokens), 1)
        written.check()
    written.prefixes.clear()
    assert written.cache.free_pages == written.cache.pages


def test_a_text_is_found_up_to_its_last_token() -> None:
    written, tokens = Written([(0, 20)]), np.arange(30, dtype=np.int32)
    assert written.ask(tokens) == 0
    assert written.ask(tokens) == 29  # the last has to be computed
    assert written.ask(np.append(tokens, [7, 7]).astype(np.int32)) == 30
    other = tokens.copy()
    other[13] = 99
    assert written.ask(other) == 13  # inside a page, which is copied


def test_room_comes_from_what_was_used_least_and_from_the_ends() -> None:
    written = Written([(0, 8)])
    old, new = np.arange(32, dtype=np.int32), np.arange(100, 132, dtype=np.int32)
    written.ask(old)
    written.ask(new)
    written.ask(np.arange(200, 216, dtype=np.int32))  # two pages more: those at the end of the old text go
    names = page_names(old, SIZE, written.prefixes.root)
    assert [name in written.prefixes for name in names] == [True, True, False, False]
    assert written.ask(new) == 31


def test_with_a_window_the_last_pages_are_enough() -> None:
    written, tokens = Written([(0, 20), (10, 4)]), np.arange(80, dtype=np.int32)
    written.ask(tokens)
    assert written.ask(np.append(tokens, 5).astype(np.int32)) == 80
    # Where the window's pages have gone, nothing before them helps.
    written.prefixes.reclaim(1, written.prefixes.cold_pages(1))
    assert written.ask(tokens) == 0


def test_names_depend_on_all_tokens_before_and_on_the_model() -> None:
    tokens = np.arange(24, dtype=np.int32)
    names = page_names(tokens, SIZE, b"a model")
    assert len(set(names)) == 3
    changed = tokens.copy()
    changed[0] = 9
    assert not set(names) & set(page_names(changed, SIZE, b"a model"))
    assert not set(names) & set(page_names(tokens, SIZE, b"another"))
    assert page_names(tokens, SIZE, b"a model", names[:2]) == names
    assert PrefixCache(PageCache([(0, 2)], SIZE, lambda *_: None), b"").match([], tokens) == NOTHING
