"""Figures predicted by what was fitted on other models, or on other sources, and how far off that is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


class Validated(Protocol):
    """A backend's errors; see `board_validation.Validation`."""

    @property
    def backend(self) -> str: ...
    @property
    def model_out(self) -> Apart: ...
    @property
    def source_out(self) -> Apart | None: ...
    @property
    def parts(self) -> Mapping[str, Apart]: ...
    @property
    def goals(self) -> Mapping[str, bool] | None: ...


ValidatedT = TypeVar("ValidatedT", bound=Validated)
Predicted = Sequence[tuple[FigureT, float]]


def parts_of(
    by_model: Predicted[FigureT],
    baseline: Predicted[FigureT],
    parts: Iterable[tuple[str, Callable[[FigureT], bool]]],
) -> dict[str, Apart]:
    """Errors of the named parts of a backend's figures; constants come from all of them."""
    found = {}
    for name, belongs in parts:
        part, base = ([pair for pair in both if belongs(pair[0])] for both in (by_model, baseline))
        if part and len(part) < len(by_model):
            found[name] = Apart(error(part), error(base))
    return found


def goals_of(model_out: Apart, source_out: Apart | None) -> dict[str, bool] | None:
    """Which goals are met; None for few figures."""
    if model_out.formula.rows < MANY:
        return None
    return {"model": model_out.met} | ({"source": source_out.met} if source_out else {})


def show_errors(
    found: Sequence[ValidatedT], baseline: str, more: Mapping[str, Callable[[ValidatedT], Error | None]]
) -> None:
    """Prints the table of errors and that of their parts; `more` are columns of errors by their heads."""

    def shown(off: Error | None) -> str:
        return "-" if off is None else f"{off.median:5.0%} {off.p90:5.0%}"

    def goal(one: ValidatedT, name: str) -> str:
        return "-" if one.goals is None or name not in one.goals else "met" if one.goals[name] else "missed"

    line = "{:18}{:>5}" + 2 * "{:>13}{:>13}{:>8}" + len(more) * "{:>13}"
    print(line.format("backend", "rows", "model", baseline, "goals", "source", baseline, "goals", *more))
    for one in found:
        out = one.source_out
        columns = (
            shown(one.model_out.formula),
            shown(one.model_out.baseline),
            goal(one, "model"),
            shown(out.formula if out else None),
            shown(out.baseline if out else None),
            goal(one, "source"),
            *(shown(column(one)) for column in more.values()),
        )
        print(line.format(one.backend, one.model_out.formula.rows, *columns))
    print("\nparts of it, without the model: rows, formula, baseline")
    for one in found:
        for name, part in one.parts.items():
            errors = f"{shown(part.formula):>13}{shown(part.baseline):>13}"
            print(f"{one.backend:18}{name:17}{part.formula.rows:5}{errors}")
