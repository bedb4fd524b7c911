"""A setting that changes between steps: threads, rows of prompts, sequences, rest. No result changes."""

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue

from tests.serve.scripted_engine import ScriptedEngine

from rockledge.board.levers import Setting
from rockledge.runtime.engine import Engine
from rockledge.runtime.exchange import Adjust, FromEngine, Stop, Submit
from rockledge.runtime.request import Output, Request
from rockledge.runtime.service import Service
from rockledge.runtime.step_budget import StepBudget

ArtifactPath = Callable[[str], Path]
REQUESTS = [
    Request(
        f"r{number}", tuple(range(number + 1, number + 40 * (number + 1))), max_tokens=12, ignore_eos=True
    )
    for number in range(4)
]
SETTINGS = [
    Setting(1, 0.25, 0.0, 1),
    Setting(3, 1.0, 0.0, 4),
    Setting(2, 0.5, 0.0, 2),
    Setting(99, 1.0, 0.0, 4),
]


def answers(engine: Engine, settings: Iterator[Setting] | None = None) -> dict[str, list[int]]:
    """The tokens of every answer, with another setting before every step."""
    found: dict[str, list[int]] = {request.id: [] for request in REQUESTS}
    for request in REQUESTS:
        engine.submit(request)
    while not engine.idle:
        if settings is not None:
            engine.adjust(next(settings))
        for output in engine.step():
            if output.piece is not None:
                found[output.request] += output.piece.ids
    return found


def test_results_do_not_change(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("rotated-tied"), threads=3, ctx=600, prefixes=False) as engine:
        expected = answers(engine)
        assert all(len(ids) == 12 for ids in expected.values())
        assert answers(engine, cycle(SETTINGS)) == expected


def test_fewer_sequences_are_begun(artifact_path: ArtifactPath) -> None:
    with Engine.load(artifact_path("rotated-tied"), threads=1, ctx=600) as engine:
        engine.adjust(SETTINGS[0])
        for request in REQUESTS:
            engine.submit(request)
        while not engine.idle:
            engine.step()
            assert engine.stats().running <= 1


def test_prompts_take_the_part_of_the_time_that_they_may() -> None:
    """A machine on which a row takes 1 ms beside 100 ms of a step without prompts: 1.7 times that are 70."""

    def settled(part: float) -> int:
        budget = StepBudget(512)
        budget.part = part
        for _ in range(60):
            rows = budget.rows(4)
            budget.ran(4, rows, 0.1 + 0.001 * rows)
        return rows

    assert 60 <= settled(1.0) <= 76
    assert 12 <= settled(0.25) <= 24


class Slow(ScriptedEngine):
    """Its steps take 20 ms; it says when they began."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[float] = []

    def step(self) -> list[Output]:
        self.begun.append(time.monotonic())
        time.sleep(0.02)
        return list(super().step())


def test_the_service_takes_a_setting_and_rests_between_steps() -> None:
    engine, came = Slow(), SimpleQueue[FromEngine]()
    service = Service(engine, came.put)
    setting = Setting(2, 1.0, 0.0, 4, rest=0.8)
    service.send(Adjust(setting))
    service.send(Submit(Request("one", (256, 65), max_tokens=6)))
    while not (isinstance(message := came.get(timeout=20), Output) and message.last):
        pass
    service.send(Stop())
    assert service.join(20)
    assert engine.adjusted == [setting]
    gaps = [later - earlier for earlier, later in zip(engine.begun, engine.begun[1:], strict=False)]
    assert gaps
    assert min(gaps) >= 0.02 + 0.07
