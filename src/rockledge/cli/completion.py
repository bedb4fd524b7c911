"""`rockledge completion SHELL`: a script that completes commands, flags and values in bash, zsh or fish.

It is made from the parser, so it names whatever the program has, and starts no Python when Tab is pressed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rockledge.cli.command import Command
from rockledge.cli.terminal import Terminal


@dataclass(frozen=True)
class Flag:
    """One flag: all its names, one line about it, whether a value follows, and the values it may have."""

    names: tuple[str, ...]
    about: str
    takes_value: bool
    values: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """What can follow `words` (such as ("npu", "info")): commands with one line about each, flags, and values
    of the first word that is not a flag."""

    words: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    flags: tuple[Flag, ...]
    values: tuple[str, ...]

    @property
    def first(self) -> tuple[tuple[str, str], ...]:
        """Words other than flags that are known, with what is said about them."""
        return self.commands or tuple((value, "") for value in self.values)


def places(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every place of a parser and of its commands."""
    from rockledge.cli.parser import subcommands

    below = subcommands(parser)
    about = {
        choice.dest: _line(choice.help)
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    }
    flags: list[Flag] = []
    values: tuple[str, ...] = ()
    for action in parser._actions:
        allowed = tuple(map(str, action.choices or ())) if not below or action.option_strings else ()
        if action.option_strings:
            names = tuple(action.option_strings)
            flags.append(Flag(names, _line(action.help), action.nargs != 0, allowed))
        else:
            values = values or allowed
    yield Place(words, tuple((name, about.get(name, "")) for name in below), tuple(flags), values)
    for name, sub in below.items():
        yield from places(sub, (*words, name))


def _line(text: str | None) -> str:
    return " ".join((text or "").replace("%%", "%").split())


def bash(found: Sequence[Place]) -> str:
    """The script for bash; what is not a command or a flag is completed as a file."""
    moves, values, words = [], [], []
    for place in found:
        at = _path(place)
        moves += [f'            "{at} {name}") at="{at} {name}" ;;' for name, _ in place.commands]
        for flag in place.flags:
            if flag.takes_value:
                cases = "|".join(f'"{at} {name}"' for name in flag.names)
                values.append(f'        {cases}) words="{" ".join(flag.values)}" flags= ;;')
        names = " ".join(name for flag in place.flags for name in flag.names)
        first = " ".join(name for name, _ in place.first)
        words.append(f'        "{at}") words="{first}" flags="{names}" ;;')
    return "\n".join(
        [
            "_rockledge() {",
            "    local at= words= flags= i",
            "    for ((i = 1; i < COMP_CWORD; i++)); do",
            '        case "$at ${COMP_WORDS[i]}" in',
            *moves,
            "        esac",
            "    done",
            '    case "$at" in',
            *words,
            "    esac",
            '    case "$at ${COMP_WORDS[COMP_CWORD - 1]}" in',
            *values,
            "    esac",
            '    [[ ${COMP_WORDS[COMP_CWORD]} == -* ]] && words="$flags"',
            '    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))',
            "}",
            "complete -o default -F _rockledge rockledge",
        ]
    )


def zsh(found: Sequence[Place]) -> str:
    """The script for zsh, to be sourced or put into a folder of $fpath as _rockledge."""
    moves, values, words = [], [], []
    for place in found:
        at = _path(place)
        moves += [f'            ("{at} {name}") at="{at} {name}" ;;' for name, _ in place.commands]
        for flag in place.flags:
            if flag.takes_value:
                cases = "|".join(f'"{at} {name}"' for name in flag.names)
                values.append(f"        ({cases}) words_=({' '.join(flag.values)}) flags_=() ;;")
        flags = " ".join(_described(name, flag.about) for flag in place.flags for name in flag.names)
        first = " ".join(_described(name, about) for name, about in place.first)
        words.append(f'        ("{at}") words_=({first}) flags_=({flags}) ;;')
    return "\n".join(
        [
            "#compdef rockledge",
            "_rockledge() {",
            "    local at= i",
            "    local -a words_ flags_",
            "    for ((i = 2; i < CURRENT; i++)); do",
            '        case "$at ${words[i]}" in',
            *moves,
            "        esac",
            "    done",
            '    case "$at" in',
            *words,
            "    esac",
            '    case "$at ${words[CURRENT - 1]}" in',
            *values,
            "    esac",
            "    if [[ ${words[CURRENT]} == -* ]]; then",
            "        _describe flag flags_",
            "    elif (( ${#words_} )); then",
            "        _describe word words_",
            "    else",
            "        _files",
            "    fi",
            "}",
            'if [[ "${funcstack[1]}" == _rockledge ]]; then _rockledge "$@"',
            "else compdef _rockledge rockledge; fi",
        ]
    )


def fish(found: Sequence[Place]) -> str:
    """The script for fish."""
    lines = []
    for place in found:
        others = [name for name, _ in place.commands]
        here = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in place.words)
        before = f"not __fish_seen_subcommand_from {' '.join(others)}" if others else ""
        inside = f" -n {_quoted(here)}" if here else ""
        first = "; and ".join(filter(None, (here, before)))
        for name, about in place.first:
            when = f" -n {_quoted(first)}" if first else ""
            lines.append(
                f"complete -c rockledge -f{when} -a {name}" + (f" -d {_quoted(about)}" if about else "")
            )
        for flag in place.flags:
            names = "".join(
                f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in flag.names
            )
            values = f" -x -a {_quoted(' '.join(flag.values))}" if flag.values else " -r" * flag.takes_value
            lines.append(f"complete -c rockledge{inside}{names}{values} -d {_quoted(flag.about)}")
    return "\n".join(lines)


def _path(place: Place) -> str:
    return "".join(f" {word}" for word in place.words)


def _described(name: str, about: str) -> str:
    """One entry of zsh's `_describe`."""
    return _quoted(f"{name}:{about.replace(':', '.')}" if about else name)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"


SCRIPTS: dict[str, Callable[[Sequence[Place]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}

# Where each shell looks for it.
_PLACES = {
    "bash": "~/.local/share/bash-completion/completions/rockledge",
    "zsh": "a folder of $fpath, as _rockledge",
    "fish": "~/.config/fish/completions/rockledge.fish",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    kept = "; ".join(f"{shell}: {place}" for shell, place in _PLACES.items())
    parser.add_argument("shell", choices=tuple(SCRIPTS), help=f"where its script belongs: {kept}")


def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Prints the script."""
    from rockledge.cli import main
    from rockledge.cli.parser import build_parser

    script = SCRIPTS[args.shell](list(places(build_parser(main.COMMANDS))))
    terminal.print(script)
    return {"shell": args.shell, "script": script}


COMMAND = Command("completion", "print a script that completes commands and flags", add_arguments, run)
