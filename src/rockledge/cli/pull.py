"""`rockledge pull ORG/NAME`: fetches a model from the Hugging Face Hub, or its newer version."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rockledge import places
from rockledge.cli.command import Command
from rockledge.cli.inspect import is_artifact
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.errors import ArtifactError, CheckpointError, UsageError
from rockledge.units import show_size

if TYPE_CHECKING:
    from rockledge.model.hub import HubName


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name."""
    parser.add_argument(
        "name",
        metavar="ORG/NAME",
        help="an artifact, a Hugging Face model, or a GGUF file as ORG/NAME:FILE or ORG/NAME:Q8_0",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Fetches it; every byte of an artifact is checked."""
    from rockledge.model.hub import hub_name
    from rockledge.model.hub_fetch import fetch
    from rockledge.model.pulled import PulledModels

    name = hub_name(args.name)
    if name is None:
        raise UsageError(f"'{args.name}' is not the name of a model on the Hub, expected ORG/NAME")
    path = fetch(name, update=True)
    artifact = path.is_dir() and _is_whole_artifact(path, name)
    pulled = PulledModels(places.pulled_models()).find(str(name))
    size = 0 if pulled is None else pulled.size
    kind = "artifact" if artifact else "checkpoint"
    terminal.print(f"{name}: {kind}, {show_size(size)}, in {path}")
    local = Path(args.name).exists()
    if local:
        terminal.print(f"{args.name} is a path here too, which other commands take; give them {path}")
    else:
        terminal.print(f"Next: rockledge run {name} PROMPT")
    return {
        "name": str(name),
        "kind": kind,
        "path": str(path),
        "size_mb": megabytes(size),
        "hidden_by_local_path": local,
    }


def _is_whole_artifact(path: Path, name: HubName) -> bool:
    """Whether an artifact was fetched; reads every byte of it. Removes it if it is damaged, so that the next
    pull fetches it."""
    from rockledge.artifact import open_artifact
    from rockledge.model.hub_fetch import forget

    try:
        artifact = is_artifact(path)
        if artifact:
            open_artifact(path).verify()
    except (ArtifactError, CheckpointError):
        forget(name)
        raise
    return artifact


COMMAND = Command("pull", "fetch a model from the Hugging Face Hub", add_arguments, run)
