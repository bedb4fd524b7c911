"""Divergence against closed forms: unigram models, shifts, flips, positions; and its general laws."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rockledge.errors import RockledgeError, UsageError
from rockledge.eval.divergence import divergence, divergences

Model = Callable[[Sequence[int]], NDArray[np.float32]]


def unigram(*probabilities: float) -> Model:
    row = np.log(np.asarray(probabilities)).astype(np.float32)
    return lambda tokens: np.tile(row, (len(tokens), 1))


def noisy(seed: int, scale: float, vocab: int = 13) -> Model:
    """Logits that depend on the tokens only, plus noise of a given size."""

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        base = np.random.default_rng(list(tokens)).normal(size=(len(tokens), vocab))
        noise = np.random.default_rng([seed, *tokens]).normal(size=base.shape)
        return (base + scale * noise).astype(np.float32)

    return model


def test_two_unigrams_by_hand() -> None:
    p, q = (0.7, 0.2, 0.1), (0.2, 0.5, 0.3)
    tokens = [0, 1, 2, 0] * 8
    report = divergence(unigram(*p), unigram(*q), tokens, window=8)
    kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert report.kl_mean_nats == pytest.approx(kl, rel=1e-6)
    assert report.kl_p99_nats == pytest.approx(kl, rel=1e-6)
    assert report.kl_max_nats == pytest.approx(kl, rel=1e-6)
    assert report.kl_mean_se_nats == pytest.approx(0, abs=1e-9)
    assert report.top1_agreement == 0
    # Window 8 scores tokens 5, 6, 7 = 1, 2, 0.
    ratio = (math.log(0.2 / 0.5) + math.log(0.1 / 0.3) + math.log(0.7 / 0.2)) / 3
    assert report.ln_perplexity_ratio == pytest.approx(ratio, rel=1e-6)
    assert report.ln_perplexity_ratio == pytest.approx(
        math.log(report.perplexity / report.reference_perplexity), rel=1e-6
    )
    assert report.scored_tokens == 12


def test_direction_is_reference_first() -> None:
    """KL(p||q) with p sharp and q flat is ln 2 - H(p); the other direction is larger here."""
    sharp, flat = unigram(0.999, 0.001), unigram(0.5, 0.5)
    report = divergence(sharp, flat, [0] * 8, window=8)
    entropy = -(0.999 * math.log(0.999) + 0.001 * math.log(0.001))
    assert report.kl_mean_nats == pytest.approx(math.log(2) - entropy, rel=1e-5)


def test_flips_know_who_was_right() -> None:
    """Token 0 follows everywhere but in the last place, where token 1 does; 2 never does."""
    report = divergence(unigram(0.6, 0.3, 0.1), unigram(0.3, 0.6, 0.1), [0, 0, 0, 0, 0, 0, 0, 1], window=8)
    assert (report.flips, report.flips_lost, report.flips_won, report.scored_tokens) == (3, 2, 1, 3)
    wrong = divergence(unigram(0.1, 0.3, 0.6), unigram(0.1, 0.6, 0.3), [0] * 8, window=8)
    assert (wrong.flips, wrong.flips_lost, wrong.flips_won) == (3, 0, 0)


def test_every_mean_lies_in_its_interval() -> None:
    tokens = np.random.default_rng(0).integers(0, 13, 512).tolist()
    report = divergence(noisy(0, 0), noisy(5, 0.8), tokens, window=32)
    for value, (low, high) in (
        (report.kl_mean_nats, report.kl_mean_ci95_nats),
        (report.top1_agreement, report.top1_agreement_ci95),
        (report.perplexity, report.perplexity_ci95),
        (report.reference_perplexity, report.reference_perplexity_ci95),
        (report.ln_perplexity_ratio, report.ln_perplexity_ratio_ci95),
        *((p.kl_mean_nats, p.kl_mean_ci95_nats) for p in report.by_position),
        *((p.top1_agreement, p.top1_agreement_ci95) for p in report.by_position),
    ):
        assert low < value < high


def test_a_model_against_itself_is_zero() -> None:
    tokens = list(range(13)) * 10
    report = divergence(noisy(1, 0.3), noisy(1, 0.3), tokens, window=32)
    assert report.kl_mean_nats == 0
    assert report.kl_max_nats == 0
    assert report.top1_agreement == 1
    assert report.ln_perplexity_ratio == 0
    assert report.ln_perplexity_ratio_se == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 3), st.integers(4, 40))
def test_laws(seed: int, scale: float, window: int) -> None:
    tokens = np.random.default_rng(seed).integers(0, 13, window * 3 + 1).tolist()
    reference = noisy(0, 0)
    report = divergence(reference, noisy(seed, scale), tokens, window=window)
    assert 0 <= report.kl_mean_nats <= report.kl_max_nats
    assert report.kl_p50_nats <= report.kl_p99_nats <= report.kl_max_nats
    assert report.top1_agreement == pytest.approx(1 - report.flips / report.scored_tokens)
    assert report.flips_lost + report.flips_won <= report.flips
    alone = divergence(noisy(seed, scale), noisy(seed, scale), tokens, window=window)
    assert report.perplexity == pytest.approx(alone.perplexity)
    # Adding a constant to all logits of a row changes no distribution.
    shifted = divergence(reference, lambda t: noisy(seed, scale)(t) + np.float32(8), tokens, window=window)
    assert shifted.kl_mean_nats == pytest.approx(report.kl_mean_nats, rel=1e-3, abs=1e-6)
    # Positions partition the scored tokens, and their weighted mean is the mean.
    assert sum(b.scored_tokens for b in report.by_position) == report.scored_tokens
    weighted = sum(b.kl_mean_nats * b.scored_tokens for b in report.by_position) / report.scored_tokens
    assert weighted == pytest.approx(report.kl_mean_nats)


def test_more_noise_more_divergence() -> None:
    tokens = np.random.default_rng(0).integers(0, 13, 512).tolist()
    models = {str(scale): noisy(5, scale) for scale in (0.05, 0.2, 0.8)}
    reports = divergences(noisy(0, 0), models, tokens, window=64)
    kl = [reports[name].kl_mean_nats for name in models]
    assert kl == sorted(kl)
    # Small Gaussian logit noise of variance s² costs s²/2 x (1 - Σp²) to second order.
    assert 0.4 * 0.05**2 / 2 < kl[0] < 0.05**2 / 2


def test_reference_runs_once_per_window() -> None:
    calls: list[int] = []

    def reference(tokens: Sequence[int]) -> NDArray[np.float32]:
        calls.append(len(tokens))
        return unigram(0.5, 0.5)(tokens)

    divergences(reference, {"a": unigram(0.4, 0.6), "b": unigram(0.3, 0.7)}, [0, 1] * 32, window=16)
    assert calls == [16] * 4


def test_both_models_see_the_beginning_token() -> None:
    seen: list[int] = []

    def model(tokens: Sequence[int]) -> NDArray[np.float32]:
        seen.append(tokens[0])
        return unigram(0.2, 0.2, 0.6)(tokens)

    divergence(model, model, [2, 1] * 8, window=8, bos=0)
    assert seen == [0] * 4


def test_divergence_is_put_at_the_position_where_it_happens() -> None:
    def late(tokens: Sequence[int]) -> NDArray[np.float32]:
        logits = np.zeros((len(tokens), 2), np.float32)
        logits[150:, 1] = 2.0
        return logits

    report = divergence(unigram(0.5, 0.5), late, [0] * 400, window=200, score_from=0)
    buckets = {(b.position_first, b.position_last): b.kl_mean_nats for b in report.by_position}
    assert list(buckets) == [(0, 63), (64, 127), (128, 191), (192, 198)]
    assert buckets[0, 63] == buckets[64, 127] == 0
    assert 0 < buckets[128, 191] < buckets[192, 198] == pytest.approx(report.kl_max_nats)


def test_refusals() -> None:
    with pytest.raises(RockledgeError, match="vocabulary of 3"):
        divergence(unigram(0.5, 0.5), unigram(0.2, 0.2, 0.6), [0] * 16, window=8)
    with pytest.raises(UsageError, match="scores nothing"):
        divergence(unigram(1.0), unigram(1.0), [0] * 16, window=8, score_from=7)
