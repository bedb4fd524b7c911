"""Who is in the next step: nobody waits for a client with many requests, nor for one that finds no room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rockledge.runtime import scheduler
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Output, Request

ArtifactPath = Callable[[str], Path]


def request(name: str, tokens: int, *, client: str = "", priority: int = 0, most: int = 20) -> Request:
    first = sum(name.encode()) % 200
    prompt = tuple((first + 7 * i) % 250 for i in range(tokens))
    return Request(
        name, prompt, max_tokens=most, ignore_eos=True, client=client, priority=priority, logprobs=0
    )


def steps_until(engine: Engine, wanted: Callable[[Output], bool], most: int = 3000) -> int:
    """Steps until an output is `wanted`."""
    for number in range(1, most):
        if any(wanted(output) for output in engine.step()):
            return number
    raise AssertionError("it never came")


def first_token(name: str) -> Callable[[Output], bool]:
    return lambda output: output.request == name and (output.piece is not None and bool(output.piece.ids))


def last(name: str) -> Callable[[Output], bool]:
    return lambda output: output.request == name and output.last


def test_a_client_with_a_hundred_requests_does_not_keep_another_waiting(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("tied"), threads=1, ctx=512, parallel=4, step_s=10.0) as engine:
        engine.submit(request("alone", 60, client="b"))
        alone = steps_until(engine, last("alone"))
        for number in range(100):
            engine.submit(request(f"a{number}", 40, client="a"))
        for _ in range(30):
            engine.step()
        assert engine.stats().running == 4
        engine.submit(request("b", 60, client="b"))
        assert steps_until(engine, last("b")) <= alone + 5


def test_a_higher_priority_pushes_a_lower_one_out_and_both_are_answered(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("tied"), threads=1, ctx=256, parallel=1) as engine:
        engine.submit(request("low", 20, most=40))
        steps_until(engine, first_token("low"))
        engine.submit(request("high", 20, priority=1, most=5))
        assert steps_until(engine, last("high")) <= 10
        assert engine.stats().preemptions == 1
        steps_until(engine, last("low"))


def test_requests_that_begin_alike_are_read_once(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("tied"), threads=1, ctx=1024, parallel=8) as engine:
        common = tuple(range(200))
        for number in range(8):
            engine.submit(Request(str(number), (*common, 250, number), max_tokens=2, ignore_eos=True))
        while not engine.idle:
            engine.step()
        stats = engine.stats()
        # Of the seven others only what comes after the last full page that they share.
        assert stats.prompt_tokens <= 202 + 7 * (200 % 32 + 2)
        assert stats.cached_tokens >= 7 * 192


def test_who_waits_in_vain_for_room_does_not_keep_those_that_run(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("tied"), threads=1, ctx=128, parallel=4) as engine:
        engine.submit(request("running", 60, most=60))
        steps_until(engine, first_token("running"))
        engine.submit(request("large", 100))
        assert steps_until(engine, last("running")) <= 60
        steps_until(engine, last("large"))


def test_a_deadline_ends_what_waits_and_what_runs(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("tied"), threads=1, ctx=128, parallel=1) as engine:
        for name in ("runs", "waits"):
            wanted = request(name, 20, most=100)
            engine.submit(Request(name, wanted.prompt, max_tokens=100, ignore_eos=True, deadline_s=0.0))
        outputs = engine.step() + engine.step()
        assert {output.request for output in outputs if output.last} == {"runs", "waits"}
        assert all(output.piece.finish == "deadline" for output in outputs if output.piece is not None)
        assert engine.idle
        assert engine.free_pages == engine.pages


def test_nobody_waits_for_one_of_lower_priority_that_reads_the_same(artifact_path: ArtifactPath) -> None:
    text = tuple(number % 250 for number in range(300))
    with Engine.load(artifact_path("rotated-tied"), threads=1, ctx=1000, parallel=4, step_s=1e-6) as engine:
        engine.submit(Request("warm", tuple(range(40)), max_tokens=1))  # from here on steps are small
        engine.step()
        engine.submit(Request("low", text, max_tokens=1))
        engine.step()
        assert engine.stats().running == 1
        engine.submit(Request("high", text, max_tokens=1, priority=2))
        for number in range(20):
            engine.submit(Request(f"middle{number}", (7, number) * 40, max_tokens=1, priority=1))
        ended: list[str] = []
        while not engine.idle:
            ended += [output.request for output in engine.step() if output.last]
    assert ended[0] == "high"
    assert ended[-1] == "low"


def test_clients_that_had_little_long_ago_are_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "HALF_LIFE_S", 1e-6)
    for number in range(600):
        engine.submit(Request(str(number), (1, 2, 3), max_tokens=1, client=f"address {number}"))
        while not engine.idle:
            engine.step()
    assert len(engine._scheduler._served) <= 300
