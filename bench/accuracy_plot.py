"""The picture of the accuracy table: mean KL against actual bits a weight, one panel a model."""

from collections.abc import Sequence
from pathlib import Path

from bench.accuracy_rows import Row
from bench.goals import OURS, THEIRS, UNIFORM, lower_hull


def plot(rows: Sequence[Row], target: Path) -> None:
    """Writes the PNG. Ours is the line; llama.cpp's files are dots with names, their envelope is dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure(figsize=(8.5, 5.5 * len(models)), layout="constrained")
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
        panel.set(
            yscale="log",
            title=model,
            xlabel="bits a weight (all tensors, embedding included)",
            ylabel="mean KL to the float model, nats a token",
        )
        panel.grid(True, which="both", alpha=0.25)
        panel.legend(fontsize=8)
    figure.savefig(target, dpi=120)
