"""Exit codes, errors and output discipline, whatever the command."""

import argparse
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rockledge import __version__
from rockledge.cli import main as main_module
from rockledge.cli.command import Command
from rockledge.cli.terminal import Terminal
from rockledge.errors import ArtifactError, UsageError

Run = Callable[..., Any]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], dict[str, Any]]], None]:
    """Replaces all commands by one named `try` that does what the test wants."""

    def install(action: Callable[[], dict[str, Any]]) -> None:
        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--count", type=int)

        def run(args: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
            terminal.print("for people")
            print("printed by a library")
            return action()

        monkeypatch.setattr(main_module, "COMMANDS", (Command("try", "a test", add_arguments, run),))

    return install


def failing(error: BaseException) -> Callable[[], dict[str, Any]]:
    def action() -> dict[str, Any]:
        raise error

    return action


def test_success_is_zero_and_json_is_alone_on_stdout(command: Run, rockledge: Run) -> None:
    command(lambda: {"speed_tok_s": 1.5})
    done = rockledge("try", "--json")
    assert done.code == 0
    assert done.json == {"speed_tok_s": 1.5}
    assert "printed by a library" in done.err
    assert "for people" in rockledge("try").out


@pytest.mark.parametrize(
    "error, code, sentence",
    [
        (ArtifactError("tensor x is damaged; get it again"), 1, "tensor x is damaged; get it again"),
        (UsageError("no such shape"), 2, "no such shape"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"), 1, "a.txt: No such file"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "pip install torch=="),
        (ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn"), 1, "'uvicorn>="),
        (ModuleNotFoundError("No module named 'odd'", name="odd"), 1, "pip install odd"),
        (ModuleNotFoundError("", name="rockledge_npu_lab"), 1, "pip install ./npu_lab"),
        (ZeroDivisionError("division by zero"), 1, "ROCKLEDGE_DEBUG=1"),
    ],
)
def test_a_failure_is_one_sentence_in_both_forms(
    command: Run, rockledge: Run, error: Exception, code: int, sentence: str
) -> None:
    command(failing(error))
    for_people, for_programs = rockledge("try"), rockledge("try", "--json")
    assert for_people.code == for_programs.code == code
    assert sentence in for_people.err
    assert "Traceback" not in for_people.err
    assert len(for_people.err.splitlines()) == 1
    assert for_programs.json["exit_code"] == code
    assert sentence in for_programs.json["error"]


def test_debug_shows_the_traceback(command: Run, rockledge: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKLEDGE_DEBUG", "1")
    command(failing(ArtifactError("broken")))
    assert "Traceback" in rockledge("try").err


def test_ctrl_c_is_130(command: Run, rockledge: Run) -> None:
    command(failing(KeyboardInterrupt()))
    done = rockledge("try")
    assert done.code == 130
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("try", "--nonsense"), ("try", "--count", "many"), ("try", "extra")]
)
def test_bad_usage_is_2_and_points_to_help(command: Run, rockledge: Run, arguments: tuple[str, ...]) -> None:
    command(dict)
    done = rockledge(*arguments)
    assert done.code == 2
    assert "--help" in done.err
    assert rockledge(*arguments, "--json").json["exit_code"] == 2


def test_help_names_every_command(rockledge: Run) -> None:
    done = rockledge("--help")
    assert done.code == 0
    for name in ("demo", "inspect", "quantize", "eval", "run", "chat", "serve", "bench", "synth"):
        assert name in done.out
        assert rockledge(name, "--help").code == 0


def test_bare_rockledge_and_version_are_answers(rockledge: Run) -> None:
    bare = rockledge()
    assert bare.code == 0
    assert bare.out == rockledge("--help").out == rockledge("help").out
    version = rockledge("--version")
    assert (version.code, version.out) == (0, f"rockledge {__version__}\n")


def test_quiet_leaves_the_answer_and_errors(rockledge: Run, artifact: Path) -> None:
    said, quiet = (rockledge("run", artifact, "Hi", "--max-tokens", 3, *flag) for flag in ((), ("--quiet",)))
    assert said.err
    assert (quiet.out, quiet.err) == (said.out, "")
    assert "context" in rockledge("run", artifact, "x" * 700, "-q").err


def test_the_program_runs_as_a_module_and_survives_a_closed_pipe() -> None:
    program = [sys.executable, "-m", "rockledge"]
    done = subprocess.run(
        [*program, "inspect", "nowhere", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["exit_code"] == 1
    closed = subprocess.run(
        f"{' '.join(program)} inspect nowhere --json 2>/dev/null | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert closed.stdout.strip() == "1"
    assert closed.stderr == ""


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("help >&-", 0),
        ("help 2>&-", 0),
        ("list <&- >&- 2>&-", 0),
        ("chat ARTIFACT -q <&-", 0),
        ("help >/dev/full", 1),
        ("inspect nowhere --json >/dev/full", 1),
        ("inspect nowhere 2>/dev/full", 1),
    ],
)
def test_streams_that_are_closed_or_full(artifact: Path, redirected: str, code: int) -> None:
    done = subprocess.run(
        f"{sys.executable} -m rockledge {redirected.replace('ARTIFACT', str(artifact))}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert not re.search("Traceback|Exception|unexpected", done.stdout + done.stderr)


def test_no_name_changes_the_terminal(rockledge: Run) -> None:
    failed = rockledge("run", "\x1b]0;title\x07\x9b2J", "hi")
    assert failed.code == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", failed.err)


def test_help_needs_no_heavy_package() -> None:
    code = (
        "import sys; from rockledge.cli.main import main; main(['--help']); "
        "print([m for m in ('torch', 'scipy', 'fastapi', 'numpy', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_answer_survives_a_poor_encoding() -> None:
    code = (
        "from rockledge.cli.terminal import Terminal; "
        "Terminal(False).print('caf\u00e9 \u4f60'); Terminal(True).result({'text': '\u4f60'})"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    plain, as_json = done.stdout.splitlines()
    assert plain == b"caf? ?"
    assert json.loads(as_json) == {"text": "\u4f60"}
