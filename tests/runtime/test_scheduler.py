"""Whose turn it is: priorities where several read the same, and clients that are remembered for a while."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rockledge.runtime import scheduler
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Request

ArtifactPath = Callable[[str], Path]


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
