"""The table of the example, and what it says about the goals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np

from examples.industrial.chain import (
    ALONE,
    DISTILLED,
    FURTHER,
    PRUNED,
    TEACHER,
    UNADAPTED,
    WIDTHS,
    aware,
    plain,
)
from examples.industrial.measure import Measured
from rockledge.eval.intervals import mean_interval, share_interval


@dataclass(frozen=True)
class Row:
    """A model as the table has it. `modelled`: tokens a second on the board, None where it is not an
    artifact."""

    about: str
    measured: Measured
    modelled: float | None


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown; brackets are intervals of 95 %."""
    rule = " | ".join(["---", *["---:"] * (len(_HEAD) - 1)])
    return [f"| {' | '.join(_HEAD)} |", f"| {rule} |", *map(_line, rows)]


_HEAD = (
    "model",
    "MB",
    "domain perplexity",
    "general perplexity",
    "domain cloze",
    "logic probes",
    "tok/s here",
    "modelled",
)


def _line(row: Row) -> str:
    found = row.measured
    cells = (
        row.about,
        f"{found.size / 1e6:.1f}",
        _perplexity(found.domain),
        _perplexity(found.general),
        _share(found.cloze),
        _share(found.probes),
        "" if found.tok_s is None else f"{found.tok_s:.0f}",
        "" if row.modelled is None else f"{row.modelled:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _perplexity(losses: Sequence[float]) -> str:
    low, high = mean_interval(np.array(losses)[:, None])
    return f"{exp(float(np.mean(losses))):.2f} ({exp(low):.2f}-{exp(high):.2f})"


def _share(right: Sequence[bool]) -> str:
    low, high = share_interval(sum(right), len(right))
    return f"{sum(right) / len(right):.1%} ({100 * low:.0f}-{100 * high:.0f})"


@dataclass(frozen=True)
class Difference:
    """The mean of a difference of losses, nats a token, paired by window, and its standard error."""

    mean: float
    error: float


def difference(one: Sequence[float], other: Sequence[float]) -> Difference:
    """How much higher the losses of `one` are than those of `other` on the same windows."""
    values = np.array(one) - np.array(other)
    return Difference(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def conclusions(models: Mapping[str, Measured]) -> list[str]:
    """What the numbers say, by the names of the chain."""
    domain = {name: found.domain for name, found in models.items()}
    gap = difference(domain[PRUNED], domain[TEACHER]).mean
    left = difference(domain[DISTILLED], domain[TEACHER]).mean
    recovered = f"distillation recovered {1 - left / gap:.0%} of it"
    found = [f"Pruning opened a gap of {gap:.3f} nats a token on the domain; {recovered}."]
    for name, said in ((ALONE, "the data alone"), (UNADAPTED, "a teacher that was not adapted")):
        better = difference(domain[name], domain[DISTILLED])
        general = difference(models[name].general, models[DISTILLED].general).mean
        found.append(
            f"Against {said} distillation is {better.mean:+.4f} nats better on the domain "
            f"({better.mean / better.error:+.1f} standard errors), and {1 - exp(-general):+.1%} in general "
            "perplexity."
        )
    for bits in WIDTHS:
        added = [difference(domain[name(bits)], domain[FURTHER]) for name in (plain, aware)]
        found.append(
            f"{bits} bits: plain quantisation adds {_nats(added[0])} to the domain loss, quantisation-aware "
            f"training {_nats(added[1])}: {added[1].mean / added[0].mean:.2f} times as much."
        )
    return found


def _nats(value: Difference) -> str:
    return f"{value.mean:.4f} ± {value.error:.4f} nats"
