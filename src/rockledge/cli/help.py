"""`rockledge help [COMMAND]`: the commands in groups, or the flags of one."""

from __future__ import annotations

import argparse
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `help`."""
    parser.add_argument("words", metavar="COMMAND", nargs="*", help="a command, such as quantize or npu info")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Prints what `rockledge --help` or `rockledge COMMAND --help` prints."""
    from rockledge.cli import main
    from rockledge.cli.parser import build_parser, check_words, subcommands

    parser: argparse.ArgumentParser = build_parser(main.COMMANDS)
    check_words(parser, args.words)
    for word in args.words:
        parser = subcommands(parser).get(word, parser)
    text = parser.format_help().rstrip()
    terminal.print(text)
    return {"help": text}


COMMAND = Command("help", "show the commands, or the flags of one", add_arguments, run)
