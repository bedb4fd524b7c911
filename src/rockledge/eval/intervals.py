"""95 % confidence intervals: of means by resampling whole windows, of shares of yes-or-no answers by Wilson.

Tokens of one window share a text and are not independent, so windows are drawn (with replacement) and not
tokens; the interval is that of the 2.5th to the 97.5th percentile of the resampled means (the percentile
bootstrap of Efron). It covers other windows of the same kind of text, not of other texts. A fixed seed
makes it the same at every run.

A share has a formula instead, because resampling says nothing where all answers are right: Wilson's score
interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927), which stays within 0 and 1 and has a width even then.
"""

import math

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
"""Lower and upper end."""

_RESAMPLES = 2000
_SEED = 20260
_Z = 1.959963984540054  # the 97.5th percentile of the normal distribution


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Interval of the mean of `values` [blocks, n]: one row a window, or a column of single observations.

    With a single block there is nothing to resample; its values then count as independent.
    """
    blocks = values.reshape(-1, 1) if len(values) == 1 else values
    means = blocks.mean(axis=1)
    # A resample is determined by how often each block is drawn.
    draws = np.random.default_rng(_SEED).multinomial(
        len(means), np.full(len(means), 1 / len(means)), _RESAMPLES
    )
    low, high = np.percentile(draws @ means / len(means), (2.5, 97.5))
    return float(low), float(high)


def share_interval(right: int, of: int) -> Interval:
    """Interval of a share, from `right` of `of` (at least one) independent answers."""
    share, extra = right / of, _Z * _Z / of
    middle = (share + extra / 2) / (1 + extra)
    half = math.sqrt(share * (1 - share) * extra + extra * extra / 4) / (1 + extra)
    return max(middle - half, 0.0), min(middle + half, 1.0)
