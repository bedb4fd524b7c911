"""The thread that runs an engine: every request ends exactly once, whatever the engine does."""

import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.scripted_engine import ScriptedEngine

from rockledge.errors import ArtifactError, ContextError, DiskError
from rockledge.runtime.engine import Engine
from rockledge.runtime.exchange import (
    AskStats,
    Cancel,
    Drain,
    Ended,
    Failed,
    FromEngine,
    Stats,
    Stop,
    Submit,
)
from rockledge.runtime.request import Output, Request
from rockledge.runtime.service import MOST_FAILURES, EngineLike, Service


class Running:
    """A service over a scripted engine; every message is pickled on its way."""

    def __init__(self, engine: EngineLike) -> None:
        self.came: SimpleQueue[FromEngine] = SimpleQueue()
        self.service = Service(engine, lambda message: self.came.put(pickle.loads(pickle.dumps(message))))

    def send(self, message: Any) -> None:
        self.service.send(pickle.loads(pickle.dumps(message)))

    def until(self, wanted: Callable[[FromEngine], bool]) -> list[FromEngine]:
        """What comes until `wanted` does, that included."""
        found = [self.came.get(timeout=10)]
        while not wanted(found[-1]):
            found.append(self.came.get(timeout=10))
        return found

    def end_of(self, request: str) -> Output:
        return self.until(lambda m: isinstance(m, Output) and m.request == request and m.last)[-1]  # type: ignore[return-value]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def running(engine: ScriptedEngine) -> Iterator[Running]:
    made = Running(engine)
    yield made
    made.send(Stop())
    assert made.service.join(10)


def text(messages: list[FromEngine], request: str) -> str:
    pieces = [m.piece for m in messages if isinstance(m, Output) and m.request == request]
    return "".join(piece.text for piece in pieces if piece is not None)


def is_end(message: FromEngine) -> bool:
    return isinstance(message, Ended)


def test_requests_run_together_and_each_gets_its_answer(engine: ScriptedEngine, running: Running) -> None:
    engine.pace = 0.005
    for name in "abc":
        running.send(Submit(Request(name, (1, 2), max_tokens=50)))
    ended = Counter()  # type: ignore[var-annotated]
    messages = running.until(lambda m: bool(ended.update([m.last])) or ended[True] == 3)  # type: ignore[union-attr, func-returns-value]
    assert [text(messages, name) for name in "abc"] == ["Hello, world"] * 3
    assert engine.most_active == 3


def test_a_request_that_can_never_run_fails_alone(engine: ScriptedEngine, running: Running) -> None:
    engine.refuses = ContextError("the prompt has 9 tokens, expected at most 8")
    running.send(Submit(Request("a", (1,))))
    failure = running.end_of("a").failure
    assert failure is not None
    assert (failure.kind, failure.message) == ("context", "the prompt has 9 tokens, expected at most 8")
    engine.refuses = None
    running.send(Submit(Request("b", (1,))))
    assert running.end_of("b").failure is None


def test_a_cancelled_request_is_gone_with_the_next_step(engine: ScriptedEngine, running: Running) -> None:
    engine.script, engine.pace = "x" * 1000, 0.01
    running.send(Submit(Request("a", (1,), max_tokens=1000)))
    running.until(lambda m: isinstance(m, Output))
    running.send(Cancel("a"))
    running.send(Cancel("never there"))
    running.send(AskStats(7))
    stats = running.until(lambda m: isinstance(m, Stats))[-1]
    assert isinstance(stats, Stats)
    assert (stats.tag, stats.stats.running) == (7, 0)
    assert engine.produced < 10


def test_a_step_that_raises_ends_what_was_open_and_nothing_else(
    engine: ScriptedEngine, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    engine.pace, engine.fail_after = 0.02, 2
    running.send(Submit(Request("a", (1,))))
    running.send(Submit(Request("b", (1,))))
    found = running.until(lambda m: isinstance(m, Output) and m.last)
    found += running.until(lambda m: isinstance(m, Output) and m.last)
    failures = [m.failure for m in found if isinstance(m, Output) and m.last]
    assert [failure and failure.kind for failure in failures] == ["failed", "failed"]
    assert all(failure and "script" not in failure.message for failure in failures)
    assert "the script says so" in caplog.text
    engine.fail_after = None
    running.send(Submit(Request("c", (1,))))
    assert text(running.until(lambda m: isinstance(m, Output) and m.last), "c") == "Hello, world"


def broken(engine: ScriptedEngine, requests: int) -> list[FromEngine]:
    """What a service says that ends by itself, after so many requests one after the other."""
    running, messages = Running(engine), list[FromEngine]()
    for number in range(requests):
        running.send(Submit(Request(f"r{number}", (1,))))
        messages += running.until(lambda m: isinstance(m, Output))
    messages += running.until(is_end)
    assert running.service.join(10)
    return messages


def test_damaged_weights_end_the_service_with_their_sentence(engine: ScriptedEngine) -> None:
    engine.failure = ArtifactError("the artifact x is damaged: fetch it again")
    messages = broken(engine, 1)
    assert Failed("the artifact x is damaged: fetch it again") in messages
    first = messages[0]
    assert isinstance(first, Output)
    assert first.failure is not None
    assert first.failure.kind == "damaged"


def test_an_engine_that_always_fails_is_given_up(engine: ScriptedEngine) -> None:
    engine.failure = ValueError("broken")
    messages = broken(engine, 3)
    assert [type(m) for m in messages] == [Output, Output, Output, Failed, Ended]


def test_a_disk_that_fails_ends_requests_and_not_the_service(
    engine: ScriptedEngine, running: Running
) -> None:
    """However often; the next request finds out whether it reads again."""
    engine.failure = DiskError("the disk says no")
    for number in range(2 * MOST_FAILURES):
        running.send(Submit(Request(f"r{number}", (1,))))
        failure = running.end_of(f"r{number}").failure
        assert failure is not None
        assert (failure.kind, failure.message) == ("disk", "the disk says no")
    engine.failure = None
    running.send(Submit(Request("c", (1,))))
    assert text(running.until(lambda m: isinstance(m, Output) and m.last), "c") == "Hello, world"


def test_an_engine_that_cannot_let_go_is_given_up(engine: ScriptedEngine) -> None:
    engine.failure, engine.cancel_fails = ValueError("broken"), True
    assert [type(m) for m in broken(engine, 1)] == [Output, Failed, Ended]


def test_draining_ends_who_waits_at_once_and_lets_the_others_finish(engine: ScriptedEngine) -> None:
    engine.parallel, engine.pace = 1, 0.02
    running = Running(engine)
    running.send(Submit(Request("running", (1,))))
    running.send(Submit(Request("waiting", (1,))))
    running.until(lambda m: isinstance(m, Output))
    running.send(Drain(10))
    running.send(Submit(Request("late", (1,))))
    messages = running.until(is_end)
    ends = [m.request for m in messages if isinstance(m, Output) and m.last]
    assert ends == ["waiting", "late", "running"]
    assert [m.failure is None for m in messages if isinstance(m, Output) and m.last] == [False, False, True]
    assert engine.idle


def test_the_grace_has_an_end(engine: ScriptedEngine) -> None:
    engine.script, engine.pace = "x" * 1000, 0.02
    running = Running(engine)
    running.send(Submit(Request("a", (1,), max_tokens=1000)))
    running.until(lambda m: isinstance(m, Output))
    start = time.monotonic()
    running.send(Drain(0.1))
    *_, last, _end = running.until(is_end)
    assert isinstance(last, Output)
    assert last.failure is not None
    assert "shutting down" in last.failure.message
    assert time.monotonic() - start < 5
    assert engine.idle


def test_a_drained_service_without_requests_ends(engine: ScriptedEngine) -> None:
    running = Running(engine)
    running.send(Drain(100))
    assert running.until(is_end) == [Ended()]
    assert running.service.join(10)


orders = st.lists(
    st.tuples(st.sampled_from(["submit", "submit", "cancel", "break", "mend", "pause"]), st.integers(0, 9)),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(orders)
def test_every_request_ends_once_in_any_order_of_things(orders: list[tuple[str, int]]) -> None:
    engine = ScriptedEngine()
    running, sent, cancelled = Running(engine), [], set()
    for step, (order, number) in enumerate(orders):
        if order == "submit":
            sent.append(f"r{step}")
            running.send(Submit(Request(sent[-1], (1,), max_tokens=number)))
        elif order == "cancel" and sent:
            cancelled.add(sent[number % len(sent)])
            running.send(Cancel(sent[number % len(sent)]))
        elif order == "pause":
            time.sleep(0.001)
        else:
            engine.fail_after = number if order == "break" else None
    running.send(Drain(5))
    messages = running.until(is_end)
    ends = Counter(m.request for m in messages if isinstance(m, Output) and m.last)
    assert set(ends.values()) <= {1}
    failed = any(isinstance(m, Failed) for m in messages)
    assert failed or set(ends) >= set(sent) - cancelled
    assert engine.idle or failed


def test_a_real_engine_drains_as_the_scripted_one(
    artifact_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine.load(artifact_path("rotated-tied"), threads=1, parallel=1) as engine:
        step = engine.step
        monkeypatch.setattr(engine, "step", lambda: [time.sleep(0.01), step()][1])
        running = Running(engine)
        for name in ("running", "waiting"):
            running.send(Submit(Request(name, (1, 2, 3), max_tokens=60, ignore_eos=True)))
        running.until(lambda m: isinstance(m, Output))
        running.send(Drain(60))
        messages = running.until(is_end)
        ends = {m.request: m for m in messages if isinstance(m, Output) and m.last}
        assert ends["waiting"].failure is not None
        assert ends["running"].failure is None
        assert running.service.join(10)
        assert engine.idle
        assert engine.free_pages == engine.pages
