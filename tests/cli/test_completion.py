"""Completion: bash runs its script; the others are run where their shell is installed."""

import argparse
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rockledge.cli.main import COMMANDS
from rockledge.cli.parser import build_parser, flags, subcommands

Run = Callable[..., Any]

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_rockledge
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(rockledge: Run, tmp_path: Path) -> Callable[..., list[str]]:
    """What bash offers for the last of some words."""
    script = tmp_path / "rockledge.bash"
    script.write_text(rockledge("completion", "bash").out)

    def ask(*words: str) -> list[str]:
        command = ["bash", "--norc", "-c", ASK, "bash", str(script), "rockledge", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return ask


def test_bash_completes_commands_flags_and_values(complete: Callable[..., list[str]]) -> None:
    assert complete("") == [command.name for command in COMMANDS]
    assert complete("qu") == ["quantize"]
    assert complete("run", "model", "--kern") == ["--kernel"]
    assert complete("run", "model", "--kernel", "p") == ["portable"]
    assert complete("npu", "emul") == ["emulate"]
    assert complete("npu", "info", "--driver", "roc") == ["rocket"]
    assert complete("completion", "z") == ["zsh"]
    assert complete("run", "mod") == []  # a file, which bash itself knows
    assert complete("run", "model", "--memory", "") == []


def everything(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from flags(parser)
    for name, sub in subcommands(parser).items():
        yield name
        yield from everything(sub)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_flag_is_in_the_script(rockledge: Run, shell: str) -> None:
    script = rockledge("completion", shell, "--json").json["script"]
    for word in set(everything(build_parser(COMMANDS))):
        shown = word
        if shell == "fish" and word.startswith("-"):
            shown = f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
        assert shown in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_reads_its_script(rockledge: Run, shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(rockledge("completion", shell).out)
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_shell_is_refused(rockledge: Run) -> None:
    done = rockledge("completion", "tcsh")
    assert done.code == 2
    assert "bash" in done.err
