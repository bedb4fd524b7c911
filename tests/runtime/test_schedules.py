"""Whatever else runs, a request gets the tokens and log probabilities of its solo run; no page is lost."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Output, Request
from rockledge.runtime.sampling import Sampling

ArtifactPath = Callable[[str], Path]

FORMS = (
    Constraint(
        "json_schema", '{"enum": ["a choice that begins alike", "a choice that begins alike too", 12]}'
    ),
    Constraint("json_schema", '{"type": "array", "items": {"const": {"key": 1}}, "maxItems": 3}'),
    Constraint("regex", "[ab]{2,20}(c+|d{40})q?"),
)


def check_pages(engine: Engine) -> None:
    """Every page is held as often as somebody holds it, and free exactly when nobody does."""
    cache, prefixes, scheduler = engine._cache, engine._prefixes, engine._scheduler
    for number, pool in enumerate(cache.pools):
        held: Counter[int] = Counter()
        for sequence in scheduler.running:
            assert sequence.cached is not None
            held.update(sequence.cached.pages[number])
        if prefixes is not None:
            held.update(page.pages[number] for page in prefixes._pages.values() if page.pages[number] >= 0)
        assert [pool.holders(page) for page in range(pool.pages)] == [
            held[page] for page in range(pool.pages)
        ]
        assert sorted(pool._free) == [page for page in range(pool.pages) if not held[page]]


def random_requests(random: np.random.Generator, count: int, longest: int) -> list[Request]:
    """Requests of all kinds; many begin alike."""
    trunks = [random.integers(0, 256, longest).tolist() for _ in range(2)]
    requests = []
    for number in range(count):
        trunk = trunks[int(random.integers(2))]
        prompt = [
            *trunk[: int(random.integers(0, longest))],
            *random.integers(0, 256, int(random.integers(1, 9))),
        ]
        seed = int(random.integers(5)) if random.random() < 0.5 else None
        score = random.random() < 0.2
        requests.append(
            Request(
                f"r{number}",
                tuple(int(token) for token in prompt),
                kind="score" if score else "generate",
                max_tokens=int(random.integers(0, 30)),
                sampling=Sampling() if seed is None else Sampling(temperature=1.5, top_k=20, seed=seed),
                stop=("q",) if random.random() < 0.2 else (),
                logprobs=int(random.integers(3)) if score or random.random() < 0.5 else None,
                ignore_eos=bool(random.random() < 0.7),
                client=str(random.integers(3)),
                priority=int(random.integers(2)),
                constraint=None
                if score or random.random() < 0.6
                else FORMS[int(random.integers(len(FORMS)))],
            )
        )
    return requests


def told(outputs: list[Output]) -> object:
    """What a client got, however it was cut into pieces."""
    pieces = [output.piece for output in outputs if output.piece is not None]
    return (
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.ids],
        [x for piece in pieces for x in piece.logprobs or ()],
        [x for piece in pieces for x in piece.top or ()],
        pieces[-1].finish if pieces else None,
        [score for output in outputs for score in output.scores],
    )


def alone(path: Path, requests: list[Request], ctx: int) -> dict[str, object]:
    """What each of them gets when nothing else has run or runs."""
    found = {}
    with Engine.load(path, threads=1, ctx=ctx, prefixes=False, parallel=1) as engine:
        for request in requests:
            engine.submit(request)
            outputs = []
            while not engine.idle:
                outputs += engine.step()
            found[request.id] = told(outputs + engine.step())
    return found


def run(
    engine: Engine, requests: list[Request], random: np.random.Generator, cancelled: set[str]
) -> dict[str, list[Output]]:
    """What each request got that arrived at a random time; those of `cancelled` are, at another."""
    got: dict[str, list[Output]] = {request.id: [] for request in requests}
    left = list(requests)
    for _ in range(5000):
        while left and random.random() < 0.3:
            engine.submit(left.pop(0))
        if cancelled and random.random() < 0.1:
            engine.cancel(sorted(cancelled)[int(random.integers(len(cancelled)))])
        for output in engine.step():
            got[output.request].append(output)
        check_pages(engine)
        if not left and engine.idle:
            break
    assert engine.free_pages == engine.pages
    return got


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("variant", ["rotated-tied", "windows", "norms-around"])
def test_every_schedule_gives_each_request_its_solo_run(
    artifact_path: ArtifactPath, tmp_path: Path, variant: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    ctx = int(random.choice([130, 200, 330]))
    requests = random_requests(random, 12, 90)
    expected = alone(artifact_path(variant), requests, ctx)
    cancelled = {request.id for request in requests if random.random() < 0.25}
    directory = tmp_path / "prefixes" if seed % 2 else None
    found = 0
    for _ in range(2):  # the second time after a restart
        with Engine.load(
            artifact_path(variant), threads=1, ctx=ctx, parallel=int(random.integers(1, 6)),
            prefix_dir=directory, prefix_bytes=1 << 20,
        ) as engine:  # fmt: skip
            got = run(engine, requests, random, cancelled)
            found = engine.stats().cached_tokens
        assert {name for name, outputs in got.items() if outputs} == set(expected)
        for name, outputs in got.items():
            assert [output.last for output in outputs] == [False] * (len(outputs) - 1) + [True]
            if name not in cancelled:
                assert told(outputs) == expected[name]
    assert found > 0
