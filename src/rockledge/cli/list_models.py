"""`rockledge list`: the models that are here, by the names that other commands take."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.known_models import KnownModel, known_models
from rockledge.cli.sizes import counted, megabytes
from rockledge.cli.terminal import Terminal, table
from rockledge.units import show_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Shows artifacts made here, models from the Hub, and conversions."""
    models = known_models()
    total = sum(model.size for model in models)
    if models:
        rows = [
            (
                _on_one_line(model.name),
                model.kind,
                "-" if model.bits is None else f"{model.bits:.2f}",
                show_size(model.size),
                _day(model.changed),
                "-" if model.used is None else _day(model.used),
            )
            for model in models
        ]
        lines = table(("name", "kind", "bits", "size", "date", "used"), rows).splitlines()
        places = ["where", *(_on_one_line(str(model.path)) for model in models)]
        for line, place in zip(lines, places, strict=True):
            terminal.print(f"{line}  {place}")
        terminal.print(f"\n{counted(len(models), 'model')}, {show_size(total)}")
    else:
        terminal.print(
            "There are no models yet: `rockledge pull ORG/NAME` fetches one from the Hugging Face Hub, "
            "`rockledge run MODEL PROMPT` takes any that you have."
        )
    return {"models": [_body(model) for model in models], "size_mb": megabytes(total)}


def _body(model: KnownModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "path": str(model.path),
        "size_mb": megabytes(model.size),
        "bits_per_weight": None if model.bits is None else round(model.bits, 4),
        "date": _moment(model.changed),
        "used": None if model.used is None else _moment(model.used),
        "source": None if model.source is None else str(model.source),
    }


def _on_one_line(text: str) -> str:
    """With escapes in place of line breaks and whatever else cannot be shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


COMMAND = Command("list", "show the models that are here", add_arguments, run)
