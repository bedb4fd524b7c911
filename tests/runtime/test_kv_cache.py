"""The page bookkeeping against a model that stores every written token."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from rockledge.errors import RockledgeError
from rockledge.runtime.kv_cache import CachedSequence, CacheFullError, PageCache, WindowPassedError

NONE = -1


class FakeStore:
    """Pages that hold what was written into them, so that wrong sharing shows as wrong contents."""

    def __init__(self, pools: list[tuple[int, int]], page_tokens: int) -> None:
        self.cells = [np.full((pages, page_tokens), NONE) for _, pages in pools]

    def copy(self, pool: int, source: int, target: int) -> None:
        self.cells[pool][target] = self.cells[pool][source]


def one_pool(
    pages: int, page_tokens: int, copy: Callable[[int, int], None] = lambda source, target: None
) -> PageCache:
    return PageCache([(0, pages)], page_tokens, lambda _pool, source, target: copy(source, target))


def table_of(sequence: CachedSequence, pools: int, width: int) -> np.ndarray:
    table = np.full((pools, width), NONE, np.int32)
    sequence.write_table(table)
    return table


class CacheMachine(RuleBasedStateMachine):
    """Random opens, writes, forks, cuts and closes over pools with and without windows; what each sequence's
    next query sees must be exactly what was written there, and every step that fits must be possible."""

    sequences = Bundle("sequences")

    @initialize(
        pools=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=3),
        page_tokens=st.integers(1, 5),
    )
    def start(self, pools: list[tuple[int, int]], page_tokens: int) -> None:
        self.store = FakeStore(pools, page_tokens)
        self.cache = PageCache(pools, page_tokens, self.store.copy)
        self.written: dict[CachedSequence, list[int]] = {}
        self.next_value = 0

    def state(self) -> object:
        held = [[pool.holders(page) for page in range(pool.pages)] for pool in self.cache.pools]
        tables = [self.table(sequence).tolist() for sequence in self.written]
        return held, self.cache.free_pages, tables, [sequence.shortest for sequence in self.written]

    def table(self, sequence: CachedSequence) -> np.ndarray:
        return table_of(sequence, len(self.cache.pools), 400)

    def first_seen(self, window: int, length: int) -> int:
        return max(0, length + 1 - window) if window else 0

    @rule(target=sequences)
    def open(self) -> CachedSequence:
        sequence = self.cache.open()
        self.written[sequence] = []
        return sequence

    @rule(
        sequence=sequences,
        tokens=st.integers(0, 14),
        rows=st.none() | st.integers(1, 6),
        use=st.floats(0, 1),
    )
    def write(self, sequence: CachedSequence, tokens: int, rows: int | None, use: float) -> None:
        """Room for `tokens`, of which a part is written, in steps of at most `rows`."""
        before, table = self.state(), self.table(sequence)
        try:
            changed = sequence.reserve(tokens, rows)
        except CacheFullError:
            assert self.state() == before
            return
        assert changed or np.array_equal(table, self.table(sequence))
        left = int(tokens * use)
        while left:
            step = min(left, rows or left)
            # No other sequence has taken what was reserved.
            table = self.table(sequence)
            assert sequence.reserve(step) or np.array_equal(table, self.table(sequence))
            assert np.array_equal(table, self.table(sequence))
            self._step(sequence, step)
            left -= step

    def _step(self, sequence: CachedSequence, tokens: int) -> None:
        table, size = self.table(sequence), self.cache.page_tokens
        for position in range(sequence.length, sequence.length + tokens):
            for pool, cells, row in zip(self.cache.pools, self.store.cells, table, strict=True):
                page = row[position // size]
                assert page != NONE
                assert pool.holders(page) == 1
                cells[page, position % size] = self.next_value
            self.written[sequence].append(self.next_value)
            self.next_value += 1
        sequence.advance(tokens)

    @rule(target=sequences, sequence=sequences)
    def fork(self, sequence: CachedSequence) -> CachedSequence:
        free = self.cache.free_pages
        twin = sequence.fork()
        assert self.cache.free_pages == free
        self.written[twin] = list(self.written[sequence])
        return twin

    @rule(sequence=sequences, part=st.floats(0, 1))
    def truncate(self, sequence: CachedSequence, part: float) -> None:
        length = int(sequence.length * part)
        before = self.state()
        try:
            sequence.truncate(length)
        except WindowPassedError:
            # Really gone: a page that a query there would see is not held.
            table, size = self.table(sequence), self.cache.page_tokens
            assert self.state() == before
            assert 0 < length < sequence.shortest
            assert any(
                row[self.first_seen(pool.window, length) // size] == NONE
                for pool, row in zip(self.cache.pools, table, strict=True)
            )
        else:
            del self.written[sequence][length:]

    @rule(sequence=consumes(sequences))
    def close(self, sequence: CachedSequence) -> None:
        sequence.close()
        sequence.close()
        del self.written[sequence]

    @invariant()
    def every_query_sees_what_was_written(self) -> None:
        for sequence, values in getattr(self, "written", {}).items():
            size, length = self.cache.page_tokens, len(values)
            assert sequence.length == length
            for pool, cells, row in zip(
                self.cache.pools, self.store.cells, self.table(sequence), strict=True
            ):
                first = self.first_seen(pool.window, length)
                seen = [int(cells[row[p // size], p % size]) for p in range(first, length)]
                assert seen == values[first:]
                assert all(page == NONE for page in row[: first // size])

    @invariant()
    def every_page_is_free_or_held(self) -> None:
        if not hasattr(self, "cache"):
            return
        for number, pool in enumerate(self.cache.pools):
            held = [page for sequence in self.written for page in sequence.pages[number]]
            for page in range(pool.pages):
                assert pool.holders(page) == held.count(page)
            assert pool.free_pages == pool.pages - len(set(held))

    def teardown(self) -> None:
        for sequence in getattr(self, "written", {}):
            sequence.close()
        if hasattr(self, "cache"):
            assert self.cache.free_pages == self.cache.pages


CacheMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestCache = CacheMachine.TestCase


def test_exhaustion_says_how_many_pages_are_missing() -> None:
    cache = one_pool(2, 4)
    sequence = cache.open()
    sequence.reserve(4)
    with pytest.raises(RockledgeError, match=r"1 free pages of 4 tokens, expected at least 2.*larger"):
        cache.open().reserve(5)
    cache = PageCache([(0, 9), (6, 2)], 4, lambda *_: None)
    with pytest.raises(CacheFullError) as failure:
        cache.open().reserve(9)
    assert str(failure.value) == (
        "the key/value cache of the layers with a window of 6 tokens has 2 free pages of 4 tokens, "
        "expected at least 3; let other requests finish"
    )
    assert cache.free_pages == 11


def test_a_shared_full_page_is_not_copied() -> None:
    copies: list[tuple[int, int]] = []
    first = one_pool(4, 4, lambda source, target: copies.append((source, target))).open()
    first.reserve(4)
    first.advance(4)
    second = first.fork()
    second.reserve(1)
    assert copies == []
    second.advance(1)
    third = second.fork()
    third.reserve(1)
    (one,), (two,), (three,) = first.pages, second.pages, third.pages
    assert copies == [(two[1], three[1])]
    assert one[0] == two[0] == three[0]


def test_a_page_is_copied_in_the_pool_that_shares_it() -> None:
    copies: list[tuple[int, int, int]] = []
    cache = PageCache([(0, 8), (4, 8)], 4, lambda *copied: copies.append(copied))
    first = cache.open()
    first.reserve(10)
    first.advance(10)
    second = first.fork()
    assert [len(pages) for pages in second.pages] == [3, 2]
    second.reserve(1)
    assert copies == [(pool, first.pages[pool][-1], second.pages[pool][-1]) for pool in (0, 1)]


@pytest.mark.parametrize("rows", [1, 5, 32])
def test_a_long_text_needs_few_pages_of_a_window(rows: int) -> None:
    """200 tokens through a window of 16: as many pages as the window and a step can touch, never another."""
    size, window = 8, 16
    most = -(-(window + rows - 2) // size) + 1
    cache = PageCache([(0, 25), (window, most)], size, lambda *_: None)
    sequence = cache.open()
    assert sequence.reserve(200, rows)
    taken, length = set(sequence.pages[1]), 0
    while length < 200:
        step = min(rows, 200 - length)
        sequence.reserve(step)
        assert set(sequence.pages[1]) <= taken
        assert sequence.capacity >= length + step
        sequence.advance(step)
        length += step
    assert len(sequence.pages[1]) == 200 // size - (200 + 1 - window) // size
    assert sequence.shortest == (200 + 1 - window) // size * size + window - 1
    sequence.close()
    assert cache.free_pages == cache.pages


def test_a_fork_keeps_what_a_window_has_passed_elsewhere() -> None:
    cache = PageCache([(4, 9)], 2, lambda *_: None)
    sequence = cache.open()
    sequence.reserve(6)
    sequence.advance(6)
    kept = sequence.fork()
    sequence.reserve(8)
    sequence.advance(8)
    with pytest.raises(WindowPassedError, match="of 14 tokens cannot be cut to 6, expected at least 13"):
        sequence.truncate(6)
    kept.truncate(5)
    assert (kept.length, sequence.length) == (5, 14)
    sequence.truncate(0)
    sequence.reserve(1)
    assert cache.free_pages == 9 - 3


def test_what_a_fork_reserves_stays_so_when_its_window_passes_shared_pages() -> None:
    cache = PageCache([(2, 3)], 1, lambda *_: None)
    sequence = cache.open()
    sequence.reserve(1)
    sequence.advance(1)
    twin = sequence.fork()
    twin.reserve(2, rows=1)
    assert cache.free_pages == 0
    for _ in range(2):
        assert not twin.reserve(1, rows=1)
        twin.advance(1)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError):
        one_pool(0, 4)
    sequence = one_pool(2, 4).open()
    sequence.reserve(2)
    with pytest.raises(ValueError):
        sequence.advance(5)
    with pytest.raises(ValueError):
        sequence.truncate(1)


def test_a_sequence_is_filled_up_with_copies_of_its_pages() -> None:
    copies: list[tuple[int, int]] = []
    sequence = one_pool(6, 4, lambda source, target: copies.append((source, target))).open()
    sequence.repeat(8)
    assert sequence.length == 0  # of nothing there is nothing to copy
    sequence.reserve(6)
    sequence.advance(6)
    sequence.repeat(17)
    (pages,) = sequence.pages
    assert (sequence.length, len(pages)) == (17, 5)
    assert copies == [(pages[0], pages[2]), (pages[1], pages[3]), (pages[0], pages[4])]
    sequence.repeat(3)
    assert sequence.length == 17
    with pytest.raises(RockledgeError, match="1 free pages"):
        sequence.repeat(29)
    assert (sequence.length, sequence.pages) == (17, (pages,))
    sequence.close()


def test_a_repeated_past_has_only_the_pages_of_its_window() -> None:
    copies: list[tuple[int, int, int]] = []
    cache = PageCache([(0, 30), (10, 4)], 4, lambda *copied: copies.append(copied))
    sequence = cache.open()
    sequence.reserve(6)
    sequence.advance(6)
    sequence.repeat(101)
    full, windowed = sequence.pages
    assert (len(full), len(windowed)) == (26, 3)  # positions 92 to 101 lie in pages 23 to 25
    assert copies[-1] == (1, windowed[0], windowed[2])
    table = table_of(sequence, 2, 30)
    assert table[1].tolist() == [NONE] * 23 + list(windowed) + [NONE] * 4
    sequence.reserve(3)
    sequence.advance(3)
    sequence.truncate(102)
    sequence.close()
    assert cache.free_pages == cache.pages
