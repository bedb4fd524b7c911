"""Perplexity of one model: exp of the mean negative log-likelihood of the scored tokens."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rockledge.eval.intervals import Interval, mean_interval


@dataclass(frozen=True)
class PerplexityReport:
    """`perplexity_se` is the standard error of `perplexity`, taking scored tokens as independent;
    `perplexity_ci95` resamples windows (see `intervals`)."""

    perplexity: float
    perplexity_se: float
    perplexity_ci95: Interval


def negative_log_likelihood(
    log_probabilities: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """-log p(target) [rows], in nats, of log-probabilities [rows, vocab] and targets [rows]."""
    result: NDArray[np.float64] = -np.take_along_axis(log_probabilities, targets[:, None], axis=1)[:, 0]
    return result


def standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of `values` [n]; 0 when n is 1."""
    return float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0


def summarise_losses(losses: NDArray[np.float64], windows: int) -> PerplexityReport:
    """The report of per-token losses [scored tokens], in nats; windows of equal length one after another."""
    mean = float(losses.mean())
    low, high = mean_interval(losses.reshape(windows, -1))
    return PerplexityReport(
        perplexity=math.exp(mean),
        perplexity_se=math.exp(mean) * standard_error(losses),
        perplexity_ci95=(math.exp(low), math.exp(high)),
    )
