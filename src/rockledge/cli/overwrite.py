"""`--overwrite`: without it no command replaces what a user has."""

from __future__ import annotations

import argparse
from pathlib import Path

from rockledge.errors import UsageError

_TRIAL_BYTES = 64 << 10
"""About what a picture or a file of facts takes."""


def add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """The flag."""
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output already")


def check_file(target: Path, overwrite: bool) -> None:
    """Before any work is done for it: raises UsageError for a file that is there, and for a directory;
    UnwritableError where no new file can be made."""
    if target.is_dir():
        raise UsageError(f"{target} is a directory, expected the name of a file; choose another place")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; add --overwrite to replace it, or choose another place")
    if not target.exists() and target.parent.is_dir():
        check_folder(target)


def check_folder(target: Path) -> None:
    """Raises UnwritableError where the folder of `target` takes no new file: read-only, or full."""
    import tempfile

    from rockledge.artifact.publish import writing

    with writing(target), tempfile.TemporaryFile(dir=target.parent) as trial:
        trial.write(bytes(_TRIAL_BYTES))
        trial.flush()
