"""The picture of the accuracy table: KL divergence against actual bits per weight, one panel a model.

    python -m bench.accuracy_plot [bench/results/accuracy.json ...]

draws the rows of saved results again, next to them.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.accuracy_rows import Row
from bench.goals import OURS, THEIRS, UNIFORM, lower_hull

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results" / "accuracy.json"


def plot(rows: Sequence[Row], target: Path) -> None:
    """Writes the PNG."""
    drawing(rows).savefig(target, dpi=120)


def drawing(rows: Sequence[Row]) -> "Figure":
    """Ours is the line; llama.cpp's files are dots with names, their envelope is dashed. Bits begin at 0, and
    the logarithmic axis has whole decades around all rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(11, 5.5 * len(models)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(models), 1, squeeze=False)[:, 0]
    for model, panel in zip(models, panels, strict=True):
        points = {
            engine: [
                (row.bits_per_weight, row.kl_mean_nats, row.name)
                for row in rows
                if row.model == model and row.engine == engine and not row.name.endswith(UNIFORM)
            ]
            for engine in (OURS, THEIRS)
        }
        if points[OURS]:
            bits, kl, _ = zip(*sorted(points[OURS]), strict=True)
            panel.plot(bits, kl, "o-", color="tab:blue", label="Rockledge (A8, KV8)")
        hull = lower_hull([(bits, kl) for bits, kl, _ in points[THEIRS]])
        panel.plot(*(zip(*hull, strict=True) if hull else ((), ())), "--", color="tab:orange", lw=1)
        for x, y, name in points[THEIRS]:
            panel.plot(x, y, ".", color="tab:orange")
            panel.annotate(name, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6)
        panel.plot([], [], ".--", color="tab:orange", label="llama.cpp with importance matrix, envelope")
        shown = [(x, y) for engine in points.values() for x, y, _ in engine if y > 0]
        panel.set(
            yscale="log",
            title=model,
            xlabel="bits per weight (all tensors, embedding included)",
            ylabel="KL divergence (nats/token)",
            xlim=(0, math.ceil(max((x for x, _ in shown), default=8)) + 0.5),
            ylim=_decades([y for _, y in shown]),
        )
        panel.grid(True, which="both", alpha=0.25)
        panel.legend(fontsize=8)
    return figure


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around all values; one decade at least."""
    low = math.floor(math.log10(min(values, default=1.0)))
    return 10.0**low, 10.0 ** max(low + 1, math.ceil(math.log10(max(values, default=1.0))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws saved rows again."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.accuracy_plot", description="draw saved rows again"
    )
    parser.add_argument("results", type=Path, nargs="*", default=[RESULTS], help="JSON of bench.accuracy")
    for path in parser.parse_args(arguments).results:
        plot([Row(**row) for row in json.loads(path.read_text())["rows"]], path.with_suffix(".png"))
        print(f"drawn in {path.with_suffix('.png')}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
