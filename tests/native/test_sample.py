"""Sampling: what each setting keeps, the distribution that is drawn from, and repeatability."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native.one_op import step_of
from tests.native.rows_of_logits import handing_on

from rockledge.errors import NativeError
from rockledge.runtime.native_draw import DrawRecord, SamplingRecord

INF = float("inf")
FIRST = np.zeros(1, np.int32)


def sample(logits: np.ndarray, *, draw: int = 0, seed: int = 0, **settings: float) -> int:
    """One token, -1 if there is none; the same arguments give the same one."""
    record = DrawRecord(number=draw, repetition=1.0, given=-1)
    record.sampling = SamplingRecord(**{"top_p": 1.0, "seed": seed, **settings})
    program = handing_on(1, logits.size)
    program.buffer(0)[:] = logits
    program.run(step_of(1, logit_rows=FIRST), draws=[record])
    return int(record.token)


def logits_of(seed: int, n: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, n).astype(np.float32)


def drawn(logits: np.ndarray, count: int = 400, **settings: float) -> set[int]:
    return {sample(logits, draw=i, **settings) for i in range(count)}


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40))
def test_greedy_takes_the_first_largest(values: list[float]) -> None:
    logits = np.array(values, np.float32)
    assert sample(logits) == int(logits.argmax())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_greedy_takes_the_first_largest_of_many(n: int, seed: int, missing: float) -> None:
    """Few distinct values, so that the largest comes often; some logits, or all but one, are no numbers."""
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 5, n).astype(np.float32)
    numbers = rng.random(n) >= missing
    numbers[rng.integers(n)] = True
    logits[~numbers] = rng.choice(np.array([np.nan, -INF], np.float32), n)[~numbers]
    assert sample(logits) == int(np.where(numbers, logits, -1).argmax())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 40, 300]), st.sampled_from([700, 5000]))
def test_top_k_of_many_keeps_the_k_largest(seed: int, k: int, n: int) -> None:
    """Rising, falling or in random order, so that the largest come late or early; with ties."""
    logits = (np.random.default_rng(seed).normal(0, 8, n) * 4).round().astype(np.float32) / 4
    logits = [logits, np.sort(logits), -np.sort(-logits)][seed % 3]
    allowed = set(np.argsort(-logits, kind="stable")[:k].tolist())
    found = drawn(logits, 60, temperature=50.0, top_k=k)
    assert found <= allowed
    assert len(found) >= min(k, 20) - k // 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = logits_of(1, 6)
    p = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    p /= p.sum()
    draws = 20000
    found = np.bincount(
        [sample(logits, temperature=temperature, seed=3, draw=i) for i in range(draws)], minlength=6
    )
    assert (np.abs(found - draws * p) < 5 * np.sqrt(draws * p * (1 - p)) + 5).all()


def test_seed_and_draw_fix_the_choice() -> None:
    logits = logits_of(2, 1000)
    first = [sample(logits, temperature=1.0, seed=9, draw=i) for i in range(50)]
    assert first == [sample(logits, temperature=1.0, seed=9, draw=i) for i in range(50)]
    assert first != [sample(logits, temperature=1.0, seed=10, draw=i) for i in range(50)]
    assert len(set(first)) > 10


def test_neighbouring_seeds_are_not_shifted_copies() -> None:
    logits = np.zeros(1000, np.float32)
    one = [sample(logits, temperature=1.0, seed=1, draw=i) for i in range(64)]
    two = [sample(logits, temperature=1.0, seed=2, draw=i) for i in range(64)]
    assert len(set(one) & set(two)) < 16


@pytest.mark.parametrize("k", [1, 2, 5, 50, 99])
def test_top_k_keeps_the_k_largest(k: int) -> None:
    logits = logits_of(3)
    allowed = set(np.argsort(-logits, kind="stable")[:k].tolist())
    found = drawn(logits, temperature=3.0, top_k=k)
    assert found <= allowed
    assert len(found) >= min(k, 4) or k == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.999), st.sampled_from([5, 70, 400]))
def test_top_p_keeps_the_smallest_sufficient_set(seed: int, top_p: float, n: int) -> None:
    logits = logits_of(seed, n)
    p = np.exp(logits.astype(np.float64) - logits.max())
    p /= p.sum()
    order = np.argsort(-logits, kind="stable")
    count = int(np.searchsorted(np.cumsum(p[order]), top_p * (1 + 1e-6))) + 1
    assert drawn(logits, 60, temperature=1.0, top_p=top_p) <= set(order[:count].tolist())


def test_top_p_does_not_drop_what_it_needs() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    assert drawn(logits, temperature=1.0, top_p=0.6) == {0, 1}
    assert drawn(logits, temperature=1.0, top_p=0.75) == {0, 1, 2}
    assert drawn(logits, temperature=1.0, top_p=0.01) == {0}


def test_min_p_is_relative_to_the_largest() -> None:
    logits = np.log(np.array([0.5, 0.26, 0.2, 0.04], np.float32))
    assert drawn(logits, temperature=1.0, min_p=0.5) == {0, 1}
    assert drawn(logits, temperature=1.0, min_p=1.0) == {0}


def test_temperature_comes_before_the_filters() -> None:
    logits = np.log(np.array([0.9, 0.1], np.float32))
    assert drawn(logits, temperature=1.0, min_p=0.3) == {0}
    assert drawn(logits, temperature=4.0, min_p=0.3) == {0, 1}


def test_what_is_no_number_is_never_drawn() -> None:
    logits = np.array([np.nan, 1.0, -INF, 1.0], np.float32)
    assert drawn(logits, temperature=1.0) == {1, 3}
    assert sample(logits) == 1
    assert sample(np.full(2, np.nan, np.float32)) == -1


def test_an_infinite_logit_wins() -> None:
    assert sample(np.array([1.0, INF, 2.0], np.float32), temperature=1.0) == 1


def test_vocabulary_of_one() -> None:
    assert sample(np.zeros(1, np.float32), temperature=1.0, top_p=0.5, top_k=3, min_p=0.1) == 0


@pytest.mark.parametrize(
    "wrong", [{"top_p": 0.0}, {"min_p": 1.5}, {"top_k": -1}, {"temperature": float("nan")}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(NativeError, match="settings of draw 0 are out of range"):
        sample(np.zeros(4, np.float32), **{"temperature": 1.0, **wrong})
