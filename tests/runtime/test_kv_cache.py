"""The page bookkeeping against a model that stores every written token."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from rockledge.errors import RockledgeError
from rockledge.runtime.kv_cache import CachedSequence, CacheFullError, PagePool


class FakeStore:
    """Pages that hold what was written into them, so that wrong sharing shows as wrong contents."""

    def __init__(self, pages: int, page_tokens: int) -> None:
        self.cells = np.full((pages, page_tokens), -1)

    def copy(self, source: int, target: int) -> None:
        self.cells[target] = self.cells[source]


class CacheMachine(RuleBasedStateMachine):
    """Random opens, writes, forks, cuts and closes; each sequence must read back exactly what it wrote."""

    sequences = Bundle("sequences")

    @initialize(pages=st.integers(1, 9), page_tokens=st.integers(1, 5))
    def start(self, pages: int, page_tokens: int) -> None:
        self.store = FakeStore(pages, page_tokens)
        self.pool = PagePool(pages, page_tokens, self.store.copy)
        self.written: dict[CachedSequence, list[int]] = {}
        self.next_value = 0

    @rule(target=sequences)
    def open(self) -> CachedSequence:
        sequence = self.pool.open()
        self.written[sequence] = []
        return sequence

    @rule(sequence=sequences, tokens=st.integers(0, 12), use=st.floats(0, 1))
    def write(self, sequence: CachedSequence, tokens: int, use: float) -> None:
        before = (sequence.pages, self.pool.free_pages)
        pages = self.pool.pages
        holders = [self.pool.holders(page) for page in range(pages)]
        try:
            changed = sequence.reserve(tokens)
        except CacheFullError:
            assert (sequence.pages, self.pool.free_pages) == before
            assert [self.pool.holders(page) for page in range(pages)] == holders
            return
        assert changed == (sequence.pages != before[0])
        used = int(tokens * use)
        for position in range(sequence.length, sequence.length + used):
            page = sequence.pages[position // self.pool.page_tokens]
            assert self.pool.holders(page) == 1
            self.store.cells[page, position % self.pool.page_tokens] = self.next_value
            self.written[sequence].append(self.next_value)
            self.next_value += 1
        sequence.advance(used)

    @rule(target=sequences, sequence=sequences)
    def fork(self, sequence: CachedSequence) -> CachedSequence:
        free = self.pool.free_pages
        twin = sequence.fork()
        assert self.pool.free_pages == free
        self.written[twin] = list(self.written[sequence])
        return twin

    @rule(sequence=sequences, part=st.floats(0, 1))
    def truncate(self, sequence: CachedSequence, part: float) -> None:
        length = int(sequence.length * part)
        sequence.truncate(length)
        del self.written[sequence][length:]

    @rule(sequence=consumes(sequences))
    def close(self, sequence: CachedSequence) -> None:
        sequence.close()
        sequence.close()
        del self.written[sequence]

    @invariant()
    def every_sequence_reads_what_it_wrote(self) -> None:
        for sequence, values in getattr(self, "written", {}).items():
            size = self.pool.page_tokens
            assert sequence.length == len(values)
            row = np.full(len(sequence.pages) + 1, -1, dtype=np.int32)
            sequence.write_table(row)
            assert list(row) == [*sequence.pages, -1]
            read = [int(self.store.cells[row[p // size], p % size]) for p in range(len(values))]
            assert read == values

    @invariant()
    def every_page_is_free_or_held(self) -> None:
        if not hasattr(self, "pool"):
            return
        held = [page for sequence in self.written for page in sequence.pages]
        for page in range(self.pool.pages):
            assert self.pool.holders(page) == held.count(page)
        assert self.pool.free_pages == self.pool.pages - len(set(held))

    def teardown(self) -> None:
        for sequence in getattr(self, "written", {}):
            sequence.close()
        if hasattr(self, "pool"):
            assert self.pool.free_pages == self.pool.pages


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCache = CacheMachine.TestCase


def test_exhaustion_says_how_many_pages_are_missing() -> None:
    pool = PagePool(2, 4, lambda source, target: None)
    sequence = pool.open()
    sequence.reserve(4)
    with pytest.raises(RockledgeError, match="1 free pages of 4 tokens, expected at least 2"):
        pool.open().reserve(5)


def test_a_shared_full_page_is_not_copied() -> None:
    copies: list[tuple[int, int]] = []
    pool = PagePool(4, 4, lambda source, target: copies.append((source, target)))
    first = pool.open()
    first.reserve(4)
    first.advance(4)
    second = first.fork()
    second.reserve(1)
    assert copies == []
    second.advance(1)
    third = second.fork()
    third.reserve(1)
    assert copies == [(second.pages[1], third.pages[1])]
    assert first.pages[0] == second.pages[0] == third.pages[0]


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError):
        PagePool(0, 4, lambda source, target: None)
    sequence = PagePool(2, 4, lambda source, target: None).open()
    sequence.reserve(2)
    with pytest.raises(ValueError):
        sequence.advance(5)
    with pytest.raises(ValueError):
        sequence.truncate(1)


def test_a_sequence_is_filled_up_with_copies_of_its_pages() -> None:
    copies: list[tuple[int, int]] = []
    pool = PagePool(6, 4, lambda source, target: copies.append((source, target)))
    sequence = pool.open()
    sequence.repeat(8)
    assert sequence.length == 0  # of nothing there is nothing to copy
    sequence.reserve(6)
    sequence.advance(6)
    sequence.repeat(17)
    pages = sequence.pages
    assert (sequence.length, len(pages)) == (17, 5)
    assert copies == [(pages[0], pages[2]), (pages[1], pages[3]), (pages[0], pages[4])]
    sequence.repeat(3)
    assert sequence.length == 17
    with pytest.raises(RockledgeError, match="1 free pages"):
        sequence.repeat(29)
    assert sequence.pages == pages
    sequence.close()
