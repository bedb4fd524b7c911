"""What came of a distillation: the numbers of report.json, and the same for people with a curve."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from rockledge.units import show_duration, show_size


@dataclass(frozen=True)
class Report:
    """`numbers` as JSON can hold them; losses in nats a token."""

    numbers: dict[str, Any]

    def json(self) -> bytes:
        """The contents of report.json."""
        return (json.dumps(self.numbers, indent=2, allow_nan=False) + "\n").encode()


_NAMES = {
    "kl": "KL from the teacher",
    "data_loss": "cross-entropy",
    "loss": "loss",
    "hidden": "hidden states (1 - cosine)",
}


def report_text(numbers: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """report.md."""
    lines = [
        f"# {numbers['student']}, taught by {numbers['teacher'] or 'the data alone'}",
        "",
        f"{numbers['steps']} steps, {numbers['tokens']:,} tokens; losses are in nats a token.",
        "",
    ]
    if (own := numbers.get("on_policy")) is not None:
        answers, most = f"{own['answers']:,} answers of its own", f"{own['longest_answer']:,} tokens"
        lines += [f"Then {own['steps']} steps on {answers}, of at most {most} each.", ""]
    lines += held_out_lines(numbers)
    lines += ["", "![loss](loss.png)", ""] if find_spec("matplotlib") else [""]
    lines += [f"- {note}" for note in numbers["notes"]]
    if made.get("command"):
        lines.append(f"- Made by `{made['command']}`")
    lines.append(f"- {show_duration(made['seconds'])}, {show_size(made['peak_memory'])} of memory at most")
    return "\n".join(lines) + "\n"


def held_out_lines(numbers: Mapping[str, Any]) -> list[str]:
    """A table of what was measured on held-out tokens before and after."""
    before, after = numbers["held_out_before"], numbers["held_out_after"]
    if not after:
        return ["Nothing was held out, so nothing was measured."]
    lines = [
        f"| on {numbers['held_out_tokens']:,} held-out tokens | before | after |",
        "| --- | --- | --- |",
    ]
    for name, title in _NAMES.items():
        if name in after and name != "loss":
            lines.append(f"| {title} | {_shown(before.get(name))} | {_shown(after[name])} |")
    perplexity = [_perplexity(part.get("data_loss")) for part in (before, after)]
    lines.append(f"| perplexity | {perplexity[0]} | {perplexity[1]} |")
    own = numbers.get("on_policy")
    if own is not None and own["held_out_after"] is not None:
        about = f"last stage: reverse KL of its answers to {own['held_out_prompts']} prompts"
        lines.append(f"| {about} | {_shown(own['held_out_before'])} | {_shown(own['held_out_after'])} |")
    return lines


def curve_picture(numbers: Mapping[str, Any]) -> bytes | None:
    """The loss over the steps as PNG; None where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    own = numbers.get("on_policy")
    figure = Figure(figsize=(8 if own is None else 12, 4.5), layout="constrained")
    axes, *beside = figure.subplots(1, 1 if own is None else 2, squeeze=False)[0]
    curve, held_out = numbers["curve"], numbers["held_out_curve"]
    for name, colour in (("kl", "#0570b0"), ("data_loss", "#74a9cf"), ("hidden", "#b2abd2")):
        points = [(entry["step"], entry[name]) for entry in curve if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, label=_NAMES[name])
        points = [(entry["step"], entry[name]) for entry in held_out if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, label=f"{_NAMES[name]}, held out")
    axes.set_xlabel("step")
    axes.set_ylabel("nats a token")
    axes.grid(alpha=0.3)
    if curve or held_out:
        axes.legend()
    for last in beside:
        points = [(entry["step"], entry["reverse_kl"]) for entry in numbers["on_policy"]["curve"]]
        last.plot(*zip(*points, strict=True), color="#238b45", label="reverse KL of its own answers")
        last.set_xlabel("step of the on-policy stage")
        last.grid(alpha=0.3)
        last.legend()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _perplexity(loss: float | None) -> str:
    return "-" if loss is None or loss > 700 else f"{math.exp(loss):.3f}"
