"""A picture of the allocation: width by layer and band, and beside it the price of four bits.

What is dark on the right should be dark on the left: the allocation spends bits where four would be
expensive.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rockledge.artifact import ArtifactPlan
from rockledge.quantization.work.store import BandPrices, Prices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {2: "#f1eef6", 3: "#bdc9e1", 4: "#74a9cf", 8: "#034e7b"}
_NAMES = {2: "2 bits", 3: "3 bits", 4: "4 bits", 8: "8 bits"}
_PRICED_BITS = 4
# Columns of a linear that is one band: seen beside those cut into many.
_WHOLE_COLUMNS = 3

PICTURE = "widths.png"  # its name in the artifact

Grid = npt.NDArray[np.float64]


def widths_picture(plan: ArtifactPlan, prices: Prices) -> bytes | None:
    """The picture as PNG; None where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return None
    file = BytesIO()
    drawing(plan, prices).savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def drawing(plan: ArtifactPlan, prices: Prices) -> "Figure":
    """The figure: on the left the bits of every band, on the right its price on one scale for all bands."""
    from matplotlib.figure import Figure

    blocks, ends = grids(plan, prices)
    layers = len(blocks)
    figure = Figure(figsize=(13, 2.2 + 0.17 * layers), layout="constrained")
    axes = figure.subplots(2, 2, squeeze=False, height_ratios=[layers, 1.5 * len(ends)])
    for row, grid in enumerate((blocks, ends)):
        _draw_widths(axes[row, 0], [[band_width(plan, band) for band in line] for line in grid])
    every = [per_million(band) for grid in (blocks, ends) for line in grid for band in line]
    positive = [value for value in every if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    for row, grid in enumerate((blocks, ends)):
        image = _draw_prices(axes[row, 1], [[per_million(band) for band in line] for line in grid], low, high)
    for column in (0, 1):
        _name_blocks(axes[0, column], blocks)
        axes[1, column].set_yticks(range(len(ends)), [line[0].linear for line in ends])
        axes[1, column].set_xticks([])
    axes[0, 0].set_title("bits per weight")
    axes[0, 1].set_title(f"price of {_PRICED_BITS} bits: KL divergence (nats/token) per million weights")
    _explain(figure, axes, image)
    return figure


def grids(plan: ArtifactPlan, prices: Prices) -> tuple[list[list[BandPrices]], list[list[BandPrices]]]:
    """Bands by line and column: a line for every layer, and one for each matrix outside the layers."""
    lines: dict[str, list[BandPrices]] = {}
    for linear in plan.linears:
        line = ".".join(linear.split(".")[:2])
        own = sorted((b for b in prices.bands if b.linear == linear), key=lambda band: band.start)
        lines.setdefault(line, []).extend(own * _WHOLE_COLUMNS if len(own) == 1 else own)
    blocks = [bands for line, bands in lines.items() if line.startswith("layers.")]
    return blocks, [bands for line, bands in lines.items() if not line.startswith("layers.")]


def band_width(plan: ArtifactPlan, measured: BandPrices) -> int:
    """The bits that a band of the prices got."""
    bands = plan.linears[measured.linear].bands
    return next(band.bits for band in bands if band.start <= measured.start < band.start + band.rows)


def per_million(band: BandPrices) -> float:
    """What four bits for this band would cost in nats a token, for every million of its weights."""
    return 1e6 * band.prices[_PRICED_BITS] / (band.rows * band.cols)


def _padded(lines: Sequence[Sequence[float]]) -> Grid:
    """Lines of one length; what is missing at the end is not a number, and stays blank."""
    grid = np.full((len(lines), max(map(len, lines))), np.nan)
    for i, line in enumerate(lines):
        grid[i, : len(line)] = line
    return grid


def _draw_widths(axes: "Axes", widths: Sequence[Sequence[int]]) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    norm = BoundaryNorm([1.5, 2.5, 3.5, 6, 8.5], len(_COLOURS))
    axes.imshow(
        _padded(widths), cmap=ListedColormap(list(_COLOURS.values())), norm=norm, **_imshow_settings()
    )


def _draw_prices(axes: "Axes", prices: Sequence[Sequence[float]], low: float, high: float) -> Any:
    from matplotlib.colors import LogNorm

    shown = np.maximum(_padded(prices), low)
    return axes.imshow(shown, cmap="PuBu", norm=LogNorm(low, max(high, 1.001 * low)), **_imshow_settings())


def _imshow_settings() -> Mapping[str, Any]:
    return {"aspect": "auto", "interpolation": "nearest"}


def _name_blocks(axes: "Axes", blocks: Sequence[Sequence[BandPrices]]) -> None:
    """Roles under the columns, with lines between them."""
    places, names, at = [], [], 0
    for linear, run in groupby(blocks[0], key=lambda band: band.linear):
        count = len(list(run))
        places.append(at + (count - 1) / 2)
        names.append(linear.split(".", 2)[2])
        at += count
        axes.axvline(at - 0.5, color="white", linewidth=2)
    axes.set_xticks(places, names, rotation=30)
    axes.set_ylabel("layer")


def _explain(figure: "Figure", axes: npt.NDArray[Any], image: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, edgecolor="grey", label=_NAMES[bits]) for bits, c in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
    figure.colorbar(image, ax=list(axes[:, 1]))
