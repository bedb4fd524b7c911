"""The parser of the command line: shows every default, and says what a mistyped word was meant to be."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from rockledge import __version__
from rockledge.cli.command import Command
from rockledge.cli.overview import DESCRIPTION, examples, overview
from rockledge.errors import UsageError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Leaves bad usage to `main`, which reports it as text or JSON. With a `page` that is its help."""

    page: str | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": Help, **named})

    def format_help(self) -> str:
        return super().format_help() if self.page is None else f"{self.page}\n"

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class Help(argparse.RawDescriptionHelpFormatter):
    """Ends the help of every flag that takes a value with its default, unless the text names it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        about, default = action.help, action.default
        if about is None or "default" in about or not action.option_strings or action.nargs == 0:
            return about
        if action.required or default is argparse.SUPPRESS:
            return about
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        text = "none" if shown in (None, "") else str(shown).replace("%", "%%")
        return f"{about} (default: {text})"


def build_parser(commands: Sequence[Command]) -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="rockledge", description=DESCRIPTION)
    parser.page = overview(commands)
    parser.add_argument("--version", action="version", version=f"rockledge {__version__}")
    add_commands(parser, commands, "command", "chosen", "COMMAND")
    return parser


def add_commands(
    parser: argparse.ArgumentParser, commands: Iterable[Command], name: str, chosen: str, metavar: str
) -> None:
    """One parser for each of `commands`, with the flags that all have; the parsed `chosen` is the command."""
    subs = parser.add_subparsers(dest=name, required=True, metavar=metavar)
    for command in commands:
        shown = examples(f"{parser.prog} {command.name}".removeprefix("rockledge "))
        sub = subs.add_parser(command.name, help=command.help, description=command.help, epilog=shown)
        command.add_arguments(sub)
        sub.set_defaults(**{chosen: command})
        if subcommands(sub):
            continue  # its own commands have these flags
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        sub.add_argument(
            "-q",
            "--quiet",
            action="store_true",
            help="print the answer and errors only: no notes, no progress",
        )


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's commands by name; empty where it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """The flags of a parser, long ones and short ones."""
    return [flag for action in parser._actions for flag in action.option_strings]


def check_words(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Raises UsageError for a command or flag that does not exist, and names the one that is most like it.

    argparse would first complain about what it misses, such as the flag that was mistyped.
    """
    for place, word in enumerate(arguments):
        commands = subcommands(parser)
        if word == "--":
            return
        if _is_flag(word):
            _check_flag(parser, word)
        elif commands:
            if word not in commands:
                raise UsageError(
                    f"there is no command '{word}'{did_you_mean(word, commands)} (see {parser.prog} --help)"
                )
            check_words(commands[word], arguments[place + 1 :])
            return


def _is_flag(word: str) -> bool:
    """As argparse sees it: text with spaces and negative numbers are values."""
    return len(word) > 1 and word[0] == "-" and " " not in word and not re.match(r"-\.?\d", word)


def _check_flag(parser: argparse.ArgumentParser, word: str) -> None:
    known, written = flags(parser), word.split("=", 1)[0]
    if written in known or (written[:2] != "--" and written[:2] in known):
        return
    if written[:2] == "--" and any(flag.startswith(written) for flag in known):
        return  # abbreviated
    raise UsageError(
        f"there is no flag {written}{did_you_mean(written, known)} (see {parser.prog} --help; "
        "text that begins with a dash follows --)"
    )
