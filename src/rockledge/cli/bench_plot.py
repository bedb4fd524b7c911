"""The picture of `rockledge bench --plot`: prefill by length, decode by sequences and depth."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge.cli.sizes import counted
from rockledge.errors import UsageError
from rockledge.pip_command import pip_install

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot(target: Path) -> None:
    """Refuses a plot that cannot be drawn, before anything is measured. Raises UsageError."""
    if find_spec("matplotlib") is None:
        raise UsageError(f"--plot needs matplotlib, which is not installed; run: {pip_install('matplotlib')}")
    if not target.parent.is_dir():
        raise UsageError(f"the folder of {target} does not exist; make it, or choose another place")


def plot(result: dict[str, Any], target: Path) -> None:
    """Writes a PNG of the object that `rockledge bench --json` prints."""
    drawing(result).savefig(target, format="png", dpi=110)


def drawing(result: dict[str, Any]) -> Figure:
    """The figure of that object; all axes begin at 0."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    lengths = [one["prompt_tokens"] for one in result["prefill"]]
    left.plot(lengths, [one["tok_s"] for one in result["prefill"]], "o-")
    left.set(title="prefill", xlabel="prompt length (tokens)", ylabel="tokens/s")
    for depth in dict.fromkeys(one["past_tokens"] for one in result["decode"]):
        points = [one for one in result["decode"] if one["past_tokens"] == depth]
        sequences = [one["sequences"] for one in points]
        right.plot(sequences, [one["tok_s"] for one in points], "o-", label=f"after {depth} tokens")
        for one in points:
            share = f"{one['roofline_share']:.0%}"
            right.annotate(share, (one["sequences"], one["tok_s"]), xytext=(4, 4), textcoords="offset points")
    right.set(
        title="decode (% of memory bandwidth)",
        xlabel="sequences in one step",
        ylabel="tokens/s of all sequences",
    )
    right.legend()
    for panel in (left, right):
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.grid(True, alpha=0.25)
    clocks = f", {min(result['clocks_mhz'])} MHz" if result["clocks_mhz"] else ""
    figure.suptitle(
        f"{result['model']}, {result['bits_per_weight']:.2f} bits per weight, kernel {result['kernel']}\n"
        f"{result['processor']}{clocks}, {counted(result['threads'], 'thread')}"
    )
    return figure
