"""`--overwrite`: without it no command replaces what a user has."""

from __future__ import annotations

import argparse
from pathlib import Path

from rockledge.errors import UsageError


def add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """The flag."""
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output already")


def check_file(target: Path, overwrite: bool) -> None:
    """Raises UsageError for a file that is there and for a folder, before any work is done."""
    if target.is_dir():
        raise UsageError(f"{target} is a folder, expected the name of a file; add one")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; add --overwrite to replace it, or choose another place")
