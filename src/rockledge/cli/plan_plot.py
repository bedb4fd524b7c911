"""The picture of `rockledge plan --plot`: what CPU and NPU can do with a byte, and what a model does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rockledge.cli.bench_plot import check_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rockledge.planning.plan import Plan

__all__ = ["check_plot", "drawing", "plot"]

_STREAMS = (1, 4, 16)
_PROMPTS = (64, 512)


def plot(plan: Plan, target: Path) -> None:
    """Writes the PNG."""
    drawing(plan).savefig(target, format="png", dpi=110)


def drawing(plan: Plan) -> Figure:
    """The roofline: products a second by products a byte, both axes logarithmic."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rockledge.planning.roofline import points, roofs

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    intensity = np.logspace(-0.5, 4, 200)
    for roof in roofs(plan.board):
        panel.plot(intensity, np.minimum(roof.products, intensity * roof.bandwidth) / 1e9, label=roof.name)
    for point in points(plan, _STREAMS, _PROMPTS):
        at = (point.intensity, point.products / 1e9)
        panel.plot(*at, "ko", markersize=4)
        panel.annotate(point.name, at, xytext=(4, -10), textcoords="offset points", fontsize=8)
    panel.set(
        xscale="log",
        yscale="log",
        xlabel="products of int8 a byte of weights and cache",
        ylabel="10$^9$ products/s",
        title=f"{plan.name} with all weights at {plan.width} bits on {plan.board.name}, modelled",
    )
    panel.grid(True, which="both", alpha=0.2)
    panel.legend()
    return figure
