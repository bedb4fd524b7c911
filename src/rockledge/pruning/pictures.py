"""Pictures for the report: importance by layer with what was kept, and the shapes that were tried."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMPORTANCE: Final = "importance.png"
SHAPES: Final = "shapes.png"
_KEPT, _GONE = "#034e7b", "#c8c8c8"


def pictures(numbers: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name, from the numbers of a report; none where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return {}
    found = {IMPORTANCE: _png(importance_picture(numbers))}
    if len(numbers["tried"]) > 1:
        found[SHAPES] = _png(shapes_picture(numbers["tried"]))
    return found


def importance_picture(numbers: Mapping[str, Any]) -> "Figure":
    """By layer: the loss without it, its influence, and how its channels' and heads' energies are spread."""
    from matplotlib.figure import Figure

    layers = numbers["layers"]
    rows = [("influence", "1 - cosine of input and output", "influence", True)]
    if all(one["cost_without"] is not None for one in layers):
        rows.insert(0, ("cost", "KL without it, nats a token", "cost_without", True))
    rows.append(("channels", "energy of the channels kept", "channel_energy_kept", False))
    rows.append(("heads", "energy of the heads kept", "head_energy_kept", False))
    figure = Figure(figsize=(10, 2.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for place, (_, label, key, wide) in zip(axes, rows, strict=True):
        _bars(place, layers, key, label, logarithmic=wide)
    axes[-1].set_xlabel("layer of the teacher (grey: left out)")
    return figure


def _bars(
    axes: "Axes", layers: Sequence[Mapping[str, Any]], key: str, label: str, *, logarithmic: bool
) -> None:
    values = [0.0 if one[key] is None else float(one[key]) for one in layers]
    colours = [_KEPT if one["kept"] else _GONE for one in layers]
    axes.bar(range(len(values)), values, color=colours)
    positive = [value for value in values if value > 0]
    if logarithmic and positive:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8 * min(positive))
    axes.set_ylabel(label, fontsize=8)


def shapes_picture(tried: Sequence[Mapping[str, Any]]) -> "Figure":
    """The loss of every shape, as it was cut and after the refit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.5 + 0.55 * len(tried)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(tried):
        axes.barh(place - 0.2, one["loss_cut"], 0.36, color=_GONE, label=None if place else "as cut")
        axes.barh(place + 0.2, one["loss"], 0.36, color=_KEPT, label=None if place else "refitted")
    axes.set_yticks(
        range(len(tried)), [one["name"] + (" (chosen)" if one["chosen"] else "") for one in tried]
    )
    axes.invert_yaxis()
    axes.set_xlabel("loss on held-out calibration text, nats a token")
    axes.legend()
    return figure


def _png(figure: "Figure") -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
