"""The picture of the validation: tok/s as predicted without the model, against what was published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITHIN: Final = 0.3
"""The goal of the 90th percentile, drawn on both sides of what would be right."""


@dataclass(frozen=True)
class Pair:
    """tok/s of a run: published, and predicted by the formula and by one constant for everything."""

    published: float
    formula: float
    baseline: float


def plot(pairs: Mapping[str, Sequence[Pair]], target: Path, constant: str = "one bandwidth") -> None:
    """Writes the PNG; the baseline's `constant` is named in it."""
    drawing(pairs, constant).savefig(target, dpi=70)


def drawing(pairs: Mapping[str, Sequence[Pair]], constant: str = "one bandwidth") -> "Figure":
    """A panel for each backend, logarithmic axes with the same span."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    columns = min(2, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(5.5 * columns, 5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(pairs) :]:
        panel.set_visible(False)
    for (backend, found), panel in zip(pairs.items(), panels, strict=False):
        published = [pair.published for pair in found]
        formula, baseline = [pair.formula for pair in found], [pair.baseline for pair in found]
        ends = min(published + formula + baseline) / 1.3, max(published + formula + baseline) * 1.3
        panel.plot(ends, ends, color="grey", lw=1)
        for factor in (1 - WITHIN, 1 + WITHIN):
            panel.plot(ends, [factor * end for end in ends], "--", color="grey", lw=0.7)
        panel.plot(published, baseline, "o", mfc="none", color="tab:orange", ms=4, label=constant)
        panel.plot(published, formula, "o", color="tab:blue", ms=4, label="formula")
        panel.set(
            title=f"{backend}, {len(found)} rows",
            xscale="log",
            yscale="log",
            xlim=ends,
            ylim=ends,
            xlabel="published tok/s",
            ylabel="predicted without the model, tok/s",
        )
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FormatStrFormatter("%g"))
            axis.set_minor_formatter(NullFormatter())
        panel.legend(loc="upper left")
    return figure
