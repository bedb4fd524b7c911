"""The picture of `rockledge bench --sustained`: speed, temperature and clock over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rockledge.cli.bench_sustained import Point


def plot(points: Sequence[Point], title: str, target: Path) -> None:
    """Writes the PNG."""
    drawing(points, title).savefig(target, format="png", dpi=110)


def drawing(points: Sequence[Point], title: str) -> Figure:
    """Two panels above each other; what the machine does not say is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    minutes = [point.seconds / 60 for point in points]
    upper.plot(minutes, [point.decode_tok_s for point in points], linewidth=0.8)
    upper.set(ylabel="tokens/s of all answers", title=title)
    upper.set_ylim(bottom=0)
    warm = [(m, p.celsius) for m, p in zip(minutes, points, strict=True) if p.celsius is not None]
    clocks = [(m, p.cpu_mhz) for m, p in zip(minutes, points, strict=True) if p.cpu_mhz is not None]
    if warm:
        lower.plot(*zip(*warm, strict=True), color="tab:red", linewidth=0.8)
    lower.set(xlabel="minutes", ylabel="°C")
    if clocks:
        beside = lower.twinx()
        beside.plot(*zip(*clocks, strict=True), color="tab:gray", linewidth=0.6)
        beside.set_ylabel("MHz of the big cores")
        beside.set_ylim(bottom=0)
    for panel in (upper, lower):
        panel.grid(True, alpha=0.25)
    return figure
