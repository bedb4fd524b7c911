"""Probabilities, their best tokens, and settings that make no sense."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rockledge.errors import UsageError
from rockledge.runtime.sampling import Sampling, TokenLogprob, log_probabilities, most_probable

LOGITS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-50, 50, width=32))


@given(LOGITS)
def test_probabilities_sum_to_one_and_keep_differences(logits: np.ndarray) -> None:
    logprobs = log_probabilities(logits)
    assert math.isclose(np.exp(logprobs).sum(), 1.0, rel_tol=1e-12)
    np.testing.assert_allclose(logprobs - logprobs[0], logits.astype(np.float64) - logits[0], atol=1e-9)


@given(LOGITS, st.integers(0, 45))
def test_the_best_are_those_of_a_stable_sort(logits: np.ndarray, count: int) -> None:
    logprobs = log_probabilities(logits)
    order = sorted(range(len(logits)), key=lambda i: (-logprobs[i], i))[:count]
    assert most_probable(logprobs, count) == tuple(TokenLogprob(i, float(logprobs[i])) for i in order)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"logit_bias": ((3, math.nan),)},
        {"logit_bias": ((3, 1e300),)},
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        Sampling(**settings)  # type: ignore[arg-type]


def test_seeds() -> None:
    assert Sampling(seed=-1).seed_or_fresh() == 2**64 - 1
    assert len({Sampling().seed_or_fresh() for _ in range(8)}) > 1
