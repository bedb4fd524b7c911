"""Facts of repeats: from their medians, with a spread from their best to their upper quartiles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rockledge.board.facts_file import Measured

QUANTILES = (0.5, 0.0, 0.75)
"""Of the seconds of repeats: for the value, and for the ends of the spread."""


def quantile(share: float) -> Callable[[Sequence[float]], float]:
    """What gives that quantile of a sequence of seconds."""
    return lambda seconds: float(np.quantile(seconds, share))


def spread_of(
    constants: Callable[[Callable[[Any], float]], Mapping[str, float]],
    units: Mapping[str, str],
    how: Mapping[str, str],
    repeats: int,
) -> dict[str, Measured]:
    """`constants` computes facts by name from repeats, of each of which it takes what it is given to choose
    with."""
    values = [constants(quantile(share)) for share in QUANTILES]
    return {
        name: Measured(
            value,
            units[name],
            how[name],
            (min(one[name] for one in values), max(one[name] for one in values)),
            repeats,
        )
        for name, value in values[0].items()
    }
