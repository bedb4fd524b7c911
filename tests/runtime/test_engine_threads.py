"""An engine that several threads use at once, and that is closed or left in the middle of work."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.test_schedules import check_pages

from rockledge.errors import UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.kv_cache import CacheFullError
from rockledge.runtime.request import Request

ArtifactPath = Callable[[str], Path]


@contextmanager
def stepping_elsewhere(engine: Engine) -> Iterator[None]:
    """Another thread is in the middle of a step."""
    entered, go_on = threading.Event(), threading.Event()

    def held() -> bool:
        entered.set()
        return go_on.wait(20)

    thread = threading.Thread(target=lambda: engine.step_unless(held))
    thread.start()
    assert entered.wait(20)
    yield
    assert thread.is_alive()
    go_on.set()
    thread.join()


def test_logits_beside_the_steps_of_others(artifact_path: ArtifactPath) -> None:
    """Each of them needs room that the prefixes of the others have to leave."""
    text = list(range(100))
    until = time.monotonic() + 1.5
    wrong: list[object] = []
    with Engine.load(artifact_path("rotated-tied"), threads=1, ctx=330) as engine:
        expected = engine.logits(text)

        def ask() -> None:
            while time.monotonic() < until:
                try:
                    if not np.array_equal(engine.logits(text, chunk=40), expected):
                        wrong.append("logits")
                except CacheFullError:  # a request has the pages
                    continue
                except Exception as error:
                    wrong.append(error)

        def write(seed: int) -> None:
            random = np.random.default_rng(seed)
            while time.monotonic() < until:
                prompt = random.integers(0, 256, int(random.integers(60, 150))).tolist()
                try:
                    list(engine.generate(prompt, max_tokens=3))
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads += [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_pages(engine)
        assert engine.free_pages == engine.pages
    assert wrong == []


@pytest.mark.parametrize("by_collector", [False, True])
def test_an_answer_is_dropped_without_waiting_for_a_step(engine: Engine, by_collector: bool) -> None:
    """The collector may run in a thread, and under a lock, that this very step waits for."""
    answer = engine.generate([1, 2, 3], max_tokens=50, ignore_eos=True)
    next(answer)
    assert engine.stats().running == 1
    with stepping_elsewhere(engine):
        if by_collector:
            cycle: list[object] = [answer]
            cycle.append(cycle)
            del cycle
        del answer
        gc.collect()
    assert engine.stats().running == 0
    assert engine.idle


def test_ids_are_in_use_once(engine: Engine) -> None:
    engine.submit(Request("generate-1", (1, 2), max_tokens=3))
    with pytest.raises(UsageError, match="an id of its own"):
        engine.submit(Request("generate-1", (1, 2)))
    for _ in range(3):
        assert list(engine.generate([5, 6], max_tokens=2))
    while not engine.idle:
        engine.step()


def test_closed_with_open_requests(artifact_path: ArtifactPath, tmp_path: Path) -> None:
    """They end, and what is left of them can be dropped; their prefixes are on the disk."""
    prompt = tuple(range(120))
    path = artifact_path("rotated-tied")
    with Engine.load(path, threads=1, ctx=330, prefix_dir=tmp_path / "prefixes") as engine:
        engine.submit(Request("one", prompt, max_tokens=50, ignore_eos=True))
        answer = engine.generate(prompt[:50], max_tokens=50, ignore_eos=True)
        next(answer)
        engine.submit(Request("two", prompt, max_tokens=50))
    assert {output.request for output in engine.step() if output.last} == {"one", "two"}
    assert engine.idle
    assert [piece.finish for piece in answer][-1] == "cancelled"
    with Engine.load(path, threads=1, ctx=330, prefix_dir=tmp_path / "prefixes") as engine:
        list(engine.generate(prompt, max_tokens=1))
        assert engine.stats().cached_tokens >= 96
