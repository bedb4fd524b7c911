"""What the measurements count, on a toy model: how fast it is says nothing, how much was done must add up."""

import time

import pytest

from rockledge.runtime import speed
from rockledge.runtime.engine import Engine
from rockledge.runtime.speed import cache_tokens, measure_decode, measure_prefill


def test_prompts_are_read_as_often_as_asked(engine: Engine) -> None:
    told: list[tuple[int, int]] = []
    start = time.perf_counter()
    found = measure_prefill(engine, 40, 3, lambda done, total: told.append((done, total)))
    whole = time.perf_counter() - start
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert len(found.tok_s_runs) == 3
    assert sum(40 / speed for speed in found.tok_s_runs) < whole
    assert found.tok_s == sorted(found.tok_s_runs)[1]


@pytest.mark.parametrize("sequences, past", [(1, 100), (3, 20)])
def test_sequences_are_written_behind_their_past(
    engine: Engine, sequences: int, past: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "PAST_READ", 40)
    start = time.perf_counter()
    found = measure_decode(engine, sequences, past, 8, 2)
    whole = time.perf_counter() - start
    assert (found.sequences, found.past_tokens, found.generated_tokens) == (sequences, past, 8)
    assert sum(sequences * 8 / speed for speed in found.tok_s_runs) < whole
    cache = sequences * engine.cache_bytes_read(past + 4)
    assert found.step_bytes == engine.step_bytes + cache
    assert found.bytes_s == pytest.approx(found.step_bytes * found.tok_s / sequences)


def test_sequences_take_whole_pages() -> None:
    assert cache_tokens(60, 5, 3, 32) == 3 * 96
    assert cache_tokens(60, 4, 1, 32) == 64
