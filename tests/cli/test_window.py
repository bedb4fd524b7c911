"""Answers of `rockledge run` in a real terminal, and the same answers in a pipe."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal_window import SCRIPTED, Window

ANSWER = "The quick brown fox jumps over the lazy dog, incomprehensibilities included.\x1b[2J"
# What a shell does: starts the program in the foreground, then reads what was typed ahead.
SHELL = "import json, subprocess, sys; subprocess.run(json.loads(sys.argv[1])); print('typed:', input())"
Shell = Callable[..., Window]


def program(script: Path, artifact: Path, answer: list[Any], *flags: str) -> list[str]:
    """`rockledge run` with a model that gives this answer."""
    script.write_text(json.dumps([answer]))
    return [sys.executable, str(SCRIPTED), str(script), "run", str(artifact), *flags, "--threads", "1"]


@pytest.fixture
def shell(artifact: Path, tmp_path: Path) -> Iterator[Shell]:
    """`shell(answer, flags...)` is a window of 20 columns in which `run` answers."""
    opened: list[Window] = []

    def start(answer: list[Any], *flags: str) -> Window:
        command = program(tmp_path / "answer.json", artifact, answer, *flags)
        opened.append(Window(["-c", SHELL, json.dumps(command)], {"TERM": "xterm"}, 20, 24))
        return opened[-1]

    yield start
    for window in opened:
        window.close()


def test_words_stay_whole_and_keys_wait_for_the_shell(shell: Shell) -> None:
    window = shell([ANSWER[:13], len("echo next\n"), ANSWER[13:]], "Hi", "--quiet")
    window.waiting()
    assert not window.echoes()
    window.type("echo next\r")
    assert window.end() == 0
    assert window.echoes()
    # As textwrap would, with a column free; the escape sequence of the model does nothing.
    assert window.lines() == [
        "The quick brown fox",
        "jumps over the lazy",
        "dog,",
        "incomprehensibiliti",
        "es included.\ufffd[2J",
        "typed: echo next",
    ]


def test_a_prompt_that_is_typed_can_be_seen(shell: Shell) -> None:
    window = shell(["fine"], "-", "--quiet")
    window.type("hello\r\x04")
    window.wait_for("fine")
    assert "hello" in window.lines()
    window.type("\r")
    assert window.end() == 0


def test_an_interruption_gives_the_echo_back(shell: Shell) -> None:
    window = shell(["begun", None], "Hi", "--quiet")
    window.waiting()
    window.kill(signal.SIGSTOP)  # the shell waits, whatever Ctrl-C does to it
    window.type("\x03")
    window.wait_for(window.echoes)


def test_a_pipe_gets_the_answer_as_it_is(artifact: Path, tmp_path: Path) -> None:
    command = program(tmp_path / "answer.json", artifact, [ANSWER], "Hi")
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "20"})
    assert done.stdout == ANSWER + "\n"


def test_in_the_background_the_terminal_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    command = program(tmp_path / "answer.json", artifact, ["one ", "two"], "Hi", "--quiet")
    shell = f"import subprocess; print(subprocess.run({command!r}, process_group=0).returncode)"
    if sys.version_info < (3, 11):  # process_group is newer
        shell = shell.replace("process_group=0", "preexec_fn=__import__('os').setpgrp")
    window = Window(["-c", shell], {"TERM": "xterm"}, 80, 24)
    try:
        assert window.end() == 0
        assert window.lines() == ["one two", "0"]
    finally:
        window.close()
