"""Prefixes on their way back from the disk: how many are held at once, and a disk that hangs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rockledge.runtime import cold_prefixes
from rockledge.runtime.cold_prefixes import AT_ONCE, ColdPrefixes
from rockledge.runtime.kv_cache import PageCache
from rockledge.runtime.prefix import PrefixCache, page_names
from rockledge.runtime.prefix_store import PrefixStore

UInt8 = npt.NDArray[np.uint8]
SIZE = 4


class Bytes:
    """Pages of one byte, and what was written into them."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def page_bytes(self, pool: int) -> int:
        return 1

    def read_page(self, pool: int, page: int, out: UInt8) -> None:
        out[:] = page

    def write_page(self, pool: int, page: int, data: UInt8) -> None:
        self.written.append(page)


class SlowStore(PrefixStore):
    """Has every page; what is asked for arrives when the test says so."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 1 << 20, b"")
        self.asked: list[tuple[int, Future[list[UInt8 | None]]]] = []

    def has(self, name: bytes, pool: int) -> bool:
        return True

    def fetch(self, names: Sequence[tuple[bytes, int]]) -> "Future[list[UInt8 | None]]":
        self.asked.append((len(names), Future()))
        return self.asked[-1][1]

    def arrive(self) -> None:
        count, future = self.asked[-1]
        future.set_result([np.zeros(1, np.uint8)] * count)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SlowStore]:
    made = SlowStore(tmp_path)
    yield made
    made.close()


def cold_prefixes_of(store: PrefixStore) -> tuple[PrefixCache, ColdPrefixes]:
    cache = PageCache([(0, 100)], SIZE, lambda *_: None)
    prefixes = PrefixCache(cache, b"root")
    return prefixes, ColdPrefixes(prefixes, cache, Bytes(), store)


def tokens_of(number: int, pages: int = AT_ONCE + 2) -> npt.NDArray[np.int32]:
    return np.full(pages * SIZE, number, np.int32)


def test_requests_that_wait_share_the_bound_of_what_is_held(store: SlowStore) -> None:
    prefixes, cold = cold_prefixes_of(store)
    texts = [tokens_of(number) for number in range(5)]
    names = [page_names(tokens, SIZE, prefixes.root) for tokens in texts]
    served: set[int] = set()
    for _ in range(30):
        waiting = [n for n in range(5) if n not in served]
        for n in waiting:
            if not cold.awaited(str(n), names[n], texts[n], 0):
                served.add(n)
                cold.forget(str(n))
        assert sum(count for count, future in store.asked if not future.done()) <= AT_ONCE
        if store.asked and not store.asked[-1][1].done():
            store.arrive()
    assert served == set(range(5))
    assert all(name in prefixes for of_text in names for name in of_text)


def test_a_request_that_has_gone_leaves_nothing(store: SlowStore) -> None:
    prefixes, cold = cold_prefixes_of(store)
    gone, other = tokens_of(0), tokens_of(1)
    names = page_names(gone, SIZE, prefixes.root)
    assert cold.awaited("gone", names, gone, 0)
    cold.forget("gone")
    store.arrive()
    assert cold.awaited("other", page_names(other, SIZE, prefixes.root), other, 0)
    assert not any(name in prefixes for name in names)


def test_a_disk_that_hangs_keeps_nobody(store: SlowStore, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes, cold = cold_prefixes_of(store)
    for number in range(2):
        tokens = tokens_of(number)
        assert cold.awaited(str(number), page_names(tokens, SIZE, prefixes.root), tokens, 0)
    monkeypatch.setattr(cold_prefixes, "LATE_S", 0.0)
    for number in range(2):
        tokens = tokens_of(number)
        assert not cold.awaited(str(number), page_names(tokens, SIZE, prefixes.root), tokens, 0)
        cold.forget(str(number))
    monkeypatch.setattr(cold_prefixes, "LATE_S", 5.0)
    store.arrive()  # and is used again when it answers
    tokens = tokens_of(2)
    assert cold.awaited("2", page_names(tokens, SIZE, prefixes.root), tokens, 0)
    assert len(store.asked) == 2
