"""Perplexity against models whose distribution is known in closed form."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rockledge.eval.divergence import DivergenceReport, divergence
from rockledge.eval.windows import Logits


def alone(model: Logits, tokens: Sequence[int], **settings: Any) -> DivergenceReport:
    """A model beside itself: its perplexity, and no divergence."""
    return divergence(model, model, tokens, **settings)


@given(st.integers(2, 50), st.integers(4, 64))
def test_uniform_model_has_the_vocabulary_as_perplexity(vocab: int, window: int) -> None:
    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.full((len(tokens), vocab), 3.5, np.float32)

    report = alone(model, [i % vocab for i in range(window * 2)], window=window)
    assert report.perplexity == pytest.approx(vocab)
    assert report.perplexity_se == pytest.approx(0, abs=1e-9)
    assert report.scored_tokens == 2 * (window - 1 - window // 2)


def test_mean_and_standard_error_by_hand() -> None:
    """p(0) = 0.8, p(1) = 0.2; window 8 scores the tokens at 5, 6, 7: here 0, 1, 0."""

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.tile(np.log(np.array([0.8, 0.2])).astype(np.float32), (len(tokens), 1))

    report = alone(model, [1, 1, 1, 1, 1, 0, 1, 0], window=8)
    losses = [-math.log(0.8), -math.log(0.2), -math.log(0.8)]
    mean = sum(losses) / 3
    variance = sum((loss - mean) ** 2 for loss in losses) / 2
    assert report.perplexity == pytest.approx(math.exp(mean), rel=1e-6)
    assert report.perplexity_se == pytest.approx(math.exp(mean) * math.sqrt(variance / 3), rel=1e-6)


def test_a_model_that_knows_the_future_scores_one() -> None:
    tokens = np.random.default_rng(0).integers(0, 11, 64).tolist()

    def model(window: Sequence[int]) -> NDArray[np.float32]:
        logits = np.zeros((len(window), 11), np.float32)
        logits[np.arange(len(window) - 1), list(window[1:])] = 100
        return logits

    seen: list[tuple[int, int]] = []
    report = alone(model, tokens, window=16, progress=lambda done, all_: seen.append((done, all_)))
    assert report.perplexity == pytest.approx(1)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert alone(model, tokens, window=16, limit=2).windows == 2
