"""Perplexity of one model on one text: exp of the mean negative log-likelihood of the scored tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rockledge.eval.intervals import Interval, mean_interval
from rockledge.eval.windows import (
    DEFAULT_WINDOW,
    Logits,
    Progress,
    cut_windows,
    log_softmax,
    row_chunks,
    scored_logits,
)


@dataclass(frozen=True)
class PerplexityReport:
    """`perplexity_se` is the standard error of `perplexity`, taking scored tokens as independent;
    `perplexity_ci95` resamples windows (see `intervals`)."""

    perplexity: float
    perplexity_se: float
    perplexity_ci95: Interval
    nll_mean_nats: float
    scored_tokens: int
    windows: int
    window_tokens: int


def perplexity(
    model: Logits,
    tokens: Sequence[int],
    *,
    window: int = DEFAULT_WINDOW,
    limit: int | None = None,
    bos: int | None = None,
    progress: Progress | None = None,
) -> PerplexityReport:
    """Scores the second half of the first `limit` windows of `tokens` (see `windows`). Memory: one window."""
    windows = cut_windows(tokens, window, limit, bos)
    first = window // 2
    losses = []
    for done, piece in enumerate(windows, 1):
        rows = scored_logits(model, piece, first)
        targets = np.asarray(piece[first + 1 :])
        for chunk in row_chunks(*rows.shape):
            losses.append(negative_log_likelihood(log_softmax(rows[chunk]), targets[chunk]))
        if progress is not None:
            progress(done, len(windows))
    return summarise_losses(np.concatenate(losses), len(windows), window)


def negative_log_likelihood(
    log_probabilities: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """-log p(target) [rows], in nats, of log-probabilities [rows, vocab] and targets [rows]."""
    result: NDArray[np.float64] = -np.take_along_axis(log_probabilities, targets[:, None], axis=1)[:, 0]
    return result


def standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of `values` [n]; 0 when n is 1."""
    return float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0


def summarise_losses(losses: NDArray[np.float64], windows: int, window: int) -> PerplexityReport:
    """The report of per-token losses [scored tokens], in nats; windows of equal length one after another."""
    mean = float(losses.mean())
    low, high = mean_interval(losses.reshape(windows, -1))
    return PerplexityReport(
        perplexity=math.exp(mean),
        perplexity_se=math.exp(mean) * standard_error(losses),
        perplexity_ci95=(math.exp(low), math.exp(high)),
        nll_mean_nats=mean,
        scored_tokens=losses.size,
        windows=windows,
        window_tokens=window,
    )
