"""`rockledge keys`: makes, lists and removes the API keys of a server."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from rockledge import places
from rockledge.cli.command import Command
from rockledge.cli.engine_options import tokens, whole
from rockledge.cli.parser import add_commands
from rockledge.cli.terminal import Terminal
from rockledge.serve.safety.key_file import LEAST, MOST, KeyLimits, add_key, read_keys, remove_key


def _add_file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="the file of keys (default: rockledge/keys.json in your configuration directory)",
    )


def _file(args: argparse.Namespace) -> Path:
    given: Path | None = args.keys
    return places.api_keys() if given is None else given


def _priority(text: str) -> int:
    low, high = LEAST["priority"], MOST["priority"]
    if text.removeprefix("-").isdecimal() and low <= int(text) <= high:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {low} to {high}")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="whose key it is")
    _add_file_argument(parser)
    parser.add_argument("--requests-per-minute", type=whole(1), metavar="N", help="most requests in 60 s")
    parser.add_argument(
        "--tokens-per-day", type=tokens(1), metavar="N", help="most tokens of prompts and answers in 24 h"
    )
    parser.add_argument("--concurrent", type=whole(1), metavar="N", help="most requests at a time")
    parser.add_argument("--answer-tokens", type=tokens(1), metavar="N", help="longest answer")
    parser.add_argument(
        "--priority",
        type=_priority,
        default=0,
        metavar="N",
        help="higher goes before other keys (-100 to 100, default: 0)",
    )


def _add(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Makes a key and prints it: it is nowhere else."""
    limits = KeyLimits(**{field.name: getattr(args, field.name) for field in fields(KeyLimits)})
    path = _file(args)
    key = add_key(path, args.name, limits)
    terminal.note(f"The key of {args.name}, shown this once; only its hash is in {path}:")
    terminal.print(key)
    return {"name": args.name, "key": key, "file": str(path)}


def _list(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Shows whose keys there are, and their limits."""
    found = []
    for key in read_keys(_file(args)):
        limits = {field.name: getattr(key.limits, field.name) for field in fields(KeyLimits)}
        shown = [f"{name} {value}" for name, value in limits.items() if value]
        terminal.print(f"{key.name}: {', '.join(shown) or 'no limits'}")
        found.append({"name": key.name, **limits})
    return {"keys": found}


def _remove(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Takes a key back; a server that runs notices within a second or so."""
    remove_key(_file(args), args.name)
    terminal.note(f"The key of {args.name} is no longer valid.")
    return {"removed": args.name}


def _add_remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="whose key is removed")
    _add_file_argument(parser)


ACTIONS = (
    Command("add", "make an API key and show it once", _add_arguments, _add),
    Command("list", "show whose keys there are", _add_file_argument, _list),
    Command("remove", "take a key back", _add_remove_arguments, _remove),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One parser for each action."""
    add_commands(parser, ACTIONS, "action", "chosen_action", "ACTION")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Runs the action that was chosen."""
    action: Command = args.chosen_action
    return action.run(args, terminal)


COMMAND = Command("keys", "make, list and remove API keys of a server", add_arguments, run)
