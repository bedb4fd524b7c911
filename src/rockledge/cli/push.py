"""`rockledge push DIR ORG/NAME`: an artifact becomes a model repository on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.inspect import is_artifact
from rockledge.cli.sizes import megabytes
from rockledge.cli.terminal import Terminal
from rockledge.errors import UsageError
from rockledge.units import show_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to push, and where."""
    parser.add_argument(
        "artifact", metavar="DIR", help="artifact, by its path or by the name in rockledge list"
    )
    parser.add_argument("name", metavar="ORG/NAME", help="repository; it is made where it does not exist")
    parser.add_argument("--private", action="store_true", help="make it visible to its owner only")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="as the Hub names it, such as apache-2.0 (default: the source model's, where it is known)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the files of a repository that holds something else"
    )


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Checks every byte, and sends the artifact with its report as the model card."""
    from rockledge.artifact import open_artifact
    from rockledge.artifact.layout import TENSORS, UNCHECKED
    from rockledge.cli.any_model import model_path
    from rockledge.cli.model_card import model_card
    from rockledge.model.hub import hub_name
    from rockledge.model.hub_push import push_files

    name = hub_name(args.name)
    if name is None or name.file is not None:
        raise UsageError(f"'{args.name}' is not the name of a repository on the Hub, expected ORG/NAME")
    path = model_path(args.artifact)
    if not is_artifact(path):
        raise UsageError(f"{path} is not an artifact; make one with `rockledge quantize {path} -o DIR`")
    artifact = open_artifact(path)
    artifact.verify()
    card = model_card(artifact, name.id, args.license)
    kept = [file for file in (*artifact.file_names, TENSORS, *UNCHECKED) if (path / file).is_file()]
    files: dict[str, Path | bytes] = {file: path / file for file in kept}
    address = push_files(
        name.id,
        {**files, "README.md": card.encode(errors="backslashreplace")},
        f"{artifact.bits_per_weight:.2f} bits a weight",
        private=args.private,
        overwrite=args.overwrite,
    )
    size = sum((path / file).stat().st_size for file in kept)
    terminal.print(f"{name}: {show_size(size)} are there ({address})")
    if "license:" not in card:
        terminal.note("Its card names no licence, because the source's is not known; --license names one.")
    terminal.print(f"Next: rockledge pull {name}")
    return {"name": name.id, "address": address, "size_mb": megabytes(size), "files": [*kept, "README.md"]}


COMMAND = Command("push", "put an artifact on the Hugging Face Hub", add_arguments, run)
