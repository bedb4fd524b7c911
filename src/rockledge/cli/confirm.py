"""Asking before something is removed; `--yes` answers beforehand, as a script must."""

from __future__ import annotations

import argparse
import sys

from rockledge.errors import UsageError


def add_yes_argument(parser: argparse.ArgumentParser) -> None:
    """The flag."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def confirmed(question: str, args: argparse.Namespace) -> bool:
    """Whether the user says yes. UsageError where nobody can be asked and there is no `--yes`."""
    if args.yes:
        return True
    if args.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this would {question}; add --yes if that is meant")
    print(f"{question[0].upper()}{question[1:]}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
