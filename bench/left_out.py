"""Figures predicted by what was fitted on other models, or on other sources, and how far off that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import numpy as np

MANY: Final = 15
GOALS: Final = (0.10, 0.30, 0.5)
"""Median and 90th percentile of the error for backends with so many rows, and the latter's share of the
baseline's."""


class Figure(Protocol):
    """Something that was published: tok/s, and the project or page that published it."""

    @property
    def tok_s(self) -> float: ...
    @property
    def source(self) -> str: ...


FigureT = TypeVar("FigureT", bound=Figure)


@dataclass(frozen=True)
class Error:
    """Median and 90th percentile of |modelled / published - 1| over `rows`."""

    rows: int
    median: float
    p90: float


@dataclass(frozen=True)
class Apart:
    """Errors where what is predicted was not seen, of the formula and of the baseline."""

    formula: Error
    baseline: Error

    @property
    def met(self) -> bool:
        """The goals."""
        median, p90, share = GOALS
        return self.formula.median < median and self.formula.p90 < min(p90, share * self.baseline.p90)


def left_out(
    runs: Sequence[FigureT],
    fitted: Callable[[Sequence[FigureT]], Callable[[FigureT], float]],
    key: Callable[[FigureT], str],
) -> list[tuple[FigureT, float]]:
    """Every run with tok/s predicted by what was fitted on the runs of another `key`."""
    predicted = []
    for held in dict.fromkeys(map(key, runs)):
        predict = fitted([run for run in runs if key(run) != held])
        predicted += [(run, predict(run)) for run in runs if key(run) == held]
    return predicted


def error(predicted: Sequence[tuple[Figure, float]]) -> Error:
    """Of figures with tok/s predicted for each."""
    errors = [abs(tok_s / run.tok_s - 1) for run, tok_s in predicted]
    return Error(len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)))


def source(run: FigureT) -> str:
    """The project or page that published it."""
    return run.source


def others(runs: Sequence[FigureT], same: Callable[[FigureT], str], *, sources: bool = True) -> Error | None:
    """How far a figure is from the median of all others of the `same`, or of those that other `sources` saw:
    the error of whoever knew these. None where there are none."""
    predicted = []
    for run in runs:
        seen = [
            r.tok_s
            for r in runs
            if r is not run and same(r) == same(run) and not (sources and r.source == run.source)
        ]
        if seen:
            predicted.append((run, float(np.median(seen))))
    return error(predicted) if predicted else None
