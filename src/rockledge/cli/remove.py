"""`rockledge rm`: removes models that `rockledge list` shows, by name or path."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from rockledge import places
from rockledge.cli.command import Command
from rockledge.cli.confirm import add_yes_argument, confirmed
from rockledge.cli.known_models import MADE, KnownModel, converted_models, find_known, known_models
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.errors import RockledgeError, UsageError, did_you_mean
from rockledge.units import show_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The names."""
    parser.add_argument("models", metavar="NAME", nargs="+", help="a name or path that rockledge list shows")
    add_yes_argument(parser)


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Removes each; nothing if one of the names is not known. Asks before it removes what `quantize` made."""
    found = list({model.path: model for model in map(_known, args.models)}.values())
    made = [model for model in found if model.kind == MADE]
    if made and not confirmed(f"remove {', '.join(str(model.path) for model in made)}", args):
        terminal.print("Nothing was removed.")
        return {"removed": [], "freed_mb": 0.0}
    freed = 0
    for model in found:
        size = _remove(model)
        freed += size
        terminal.print(f"{model.name} is removed: {show_size(size)} are free.")
    return {"removed": [model.name for model in found], "freed_mb": megabytes(freed)}


def _known(name: str) -> KnownModel:
    model = find_known(name)
    if model is None:
        hint = did_you_mean(name, [known.name for known in known_models()])
        raise UsageError(f"rockledge list shows no model {name}{hint or '; give one of its names'}")
    return model


def _remove(model: KnownModel) -> int:
    """Bytes freed. RockledgeError where the model is in use or cannot be removed."""
    from rockledge.model.pulled import PulledModels

    if model.key is not None:
        freed = converted_models().remove(model.key)
        if freed is None:
            raise RockledgeError(f"{model.name} is in use by another process; end that first")
        return freed
    if model.record is not None:
        pulled = PulledModels(places.pulled_models())
        with pulled.locked(model.name, wait=False) as mine:
            if not mine:
                raise RockledgeError(f"{model.name} is being fetched by another process; end that first")
            return pulled.remove(model.record)
    if model.kind == MADE:
        return _remove_artifact(model.path)
    model.path.unlink()
    return model.size


def _remove_artifact(directory: Path) -> int:
    """Removes an artifact's files, and the directory if nothing else is in it; returns the bytes freed."""
    from rockledge.artifact import open_artifact
    from rockledge.artifact.layout import TENSORS, UNCHECKED

    freed = 0
    for name in (*open_artifact(directory).file_names, TENSORS, *UNCHECKED):
        file = directory / name
        if file.is_file():
            freed += file.stat().st_size
            file.unlink()
    with suppress(OSError):  # other files are in it, or it is a link
        directory.rmdir()
    return freed


COMMAND = Command("rm", "remove a model that list shows", add_arguments, run)
