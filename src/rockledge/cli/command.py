"""What a command is to the program around it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rockledge.cli.terminal import Terminal


@dataclass(frozen=True)
class Command:
    """A subcommand. `run` returns the object that `--json` prints; people read the terminal.

    The object may hold `exit_code` where a command has run, but its check failed.

    `prints_itself` is for commands that print their object before they end (a server: its address).
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Terminal], dict[str, Any]]
    prints_itself: bool = False
