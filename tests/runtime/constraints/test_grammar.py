"""The masks of a step, made by two threads: each once, all by the time they are needed, none afterwards."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rockledge.runtime.constraints.grammar import GrammarMatcher, Masks


class Counted(GrammarMatcher):
    """Notes the threads that make its mask; with `begun` it stays at that until `go` is set."""

    def __init__(self, begun: threading.Event | None = None, go: threading.Event | None = None) -> None:
        self.filled: list[int] = []
        self.begun, self.go = begun, go

    def fill(self) -> None:
        if self.begun is not None and self.go is not None:
            self.begun.set()
            assert self.go.wait(10)
        self.filled.append(threading.get_ident())


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_masks_are_made_by_who_needs_them_where_the_thread_is_late(thread: ThreadPoolExecutor) -> None:
    late = threading.Event()
    thread.submit(late.wait, 10)
    matchers = [Counted() for _ in range(8)]
    Masks(thread, matchers).finish()
    assert [matcher.filled for matcher in matchers] == [[threading.get_ident()]] * 8
    late.set()


def test_a_mask_in_the_making_is_waited_for_and_none_is_made_twice(thread: ThreadPoolExecutor) -> None:
    begun, go = threading.Event(), threading.Event()
    matchers = [Counted(begun, go), *(Counted() for _ in range(7))]
    masks = Masks(thread, matchers)
    assert begun.wait(10)
    threading.Timer(0.05, go.set).start()
    masks.finish()
    assert [len(matcher.filled) for matcher in matchers] == [1] * 8
    assert matchers[0].filled != [threading.get_ident()]


def test_masks_of_a_step_that_failed_are_left(thread: ThreadPoolExecutor) -> None:
    begun, go = threading.Event(), threading.Event()
    matchers = [Counted(begun, go), *(Counted() for _ in range(7))]
    masks = Masks(thread, matchers)
    assert begun.wait(10)
    threading.Timer(0.05, go.set).start()
    masks.abandon()
    assert [len(matcher.filled) for matcher in matchers] == [1] + [0] * 7
