"""The picture of the serving table: throughput, first tokens and gaps over the number of streams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.serving.rows import BEFORE, COUNTS, SHAPES
from bench.serving.servers import OURS, THEIRS

COLORS = {OURS: "tab:blue", THEIRS: "tab:orange", BEFORE: "tab:gray"}
PANELS = (
    ("tokens a second, all streams", ("tok_s",), "linear"),
    ("first token, p50 and p99 (ms)", ("ttft_p50_ms", "ttft_p99_ms"), "log"),
    ("gap between tokens, p50 and p99 (ms)", ("gap_p50_ms", "gap_p99_ms"), "log"),
)


def plot(rows: Mapping[str, Any], target: Path) -> None:
    """Writes the PNG: one line of panels for each shape that has rows; p50 is drawn through, p99 dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shapes = [shape for shape in SHAPES if any(f"streams_{count} {shape}" in rows for count in COUNTS)]
    if not shapes:
        return
    figure = Figure(figsize=(13, 3.8 * len(shapes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shapes), len(PANELS), squeeze=False)
    for shape, line in zip(shapes, axes, strict=True):
        for (title, figures, scale), panel in zip(PANELS, line, strict=True):
            lines = [
                (engine, style, _points(rows, shape, engine, name))
                for engine in COLORS
                for name, style in zip(figures, ("o-", "o--"), strict=False)
            ]
            for engine, style, points in lines:
                if points:
                    label = engine if style == "o-" else None
                    panel.plot(*zip(*points, strict=True), style, color=COLORS[engine], label=label)
            panel.set(title=f"{shape}: {title}", xlabel="streams", xscale="log")
            panel.set_xticks(COUNTS, [str(count) for count in COUNTS])
            panel.minorticks_off()
            panel.grid(True, alpha=0.25)
            if any(points for _, _, points in lines):
                panel.set_yscale(scale)
                panel.legend(fontsize=8)
            if scale == "linear":
                panel.set_ylim(bottom=0)
    figure.savefig(target, dpi=110)


def _points(rows: Mapping[str, Any], shape: str, engine: str, figure: str) -> list[tuple[int, float]]:
    found = ((count, rows.get(f"streams_{count} {shape}", {}).get(engine, {})) for count in COUNTS)
    return [(count, one[figure]) for count, one in found if figure in one]
