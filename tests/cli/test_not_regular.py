"""What is not a file in the place of one is said in a sentence, and nobody waits for the other end of a pipe.

The commands run as programs of their own with a time limit, because a blocked open cannot be interrupted.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_SECONDS = 60


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # because the paths of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


KINDS: tuple[Callable[[Path], None], ...] = (_pipe, _directory, _socket, _device, _dangling)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKLEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _ask(*lines: tuple[object, ...]) -> list[tuple[int, str]]:
    """Exit code and stderr of several commands, in one program: starting one takes longest."""
    script = (
        "import contextlib, io, json, sys\nfrom rockledge.cli.main import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    err = io.StringIO()\n"
        "    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):\n"
        "        code = main(line)\n"
        "    print(json.dumps((code, err.getvalue())))\n"
    )
    texts = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", script, texts], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def _refused(found: list[tuple[int, str]], count: int) -> None:
    assert len(found) == count
    for code, said in found:
        assert code == 1, said
        assert "Traceback" not in said, said


def test_in_an_artifact(artifact: Path, tmp_path: Path) -> None:
    lines: list[tuple[object, ...]] = []
    for kind in KINDS:
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            copy = shutil.copytree(artifact, tmp_path / f"{kind.__name__}-{name}")
            (copy / name).unlink()
            kind(copy / name)
            lines += [("inspect", copy), ("run", copy, "Hello", "--max-tokens", 1)]
    _refused(_ask(*lines), len(lines))


def test_in_the_cache(artifact: Path, cache: Path) -> None:
    lines: list[tuple[object, ...]] = []
    for kind in KINDS:
        entries = cache / "converted"
        for name in ("model.safetensors", "config.json"):
            copy = shutil.copytree(artifact, entries / f"key{kind.__name__}-{name}" / "toy")
            (copy / name).unlink()
            kind(copy / name)
        kind(entries / f"stray{kind.__name__}")
        whole = shutil.copytree(artifact, entries / f"key{kind.__name__}" / f"whole{kind.__name__}")
        (whole / "report.json").unlink(missing_ok=True)
        kind(whole / "report.json")
        lines += [("inspect", whole.name), ("rm", whole.name)]
    found = _ask(("list",), *lines, ("clean", "--yes"))
    assert {code for code, _ in found} == {0}, found
    assert not list((cache / "converted").glob("key*/*"))


def test_in_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    lines: list[tuple[object, ...]] = []
    for kind in KINDS:
        for name in ("model.safetensors", "config.json", "additional_chat_templates/tool.jinja"):
            copy = shutil.copytree(checkpoint, tmp_path / f"{kind.__name__}-{Path(name).name}")
            (copy / name).unlink(missing_ok=True)
            (copy / name).parent.mkdir(exist_ok=True)
            kind(copy / name)
            lines += [("inspect", copy), ("run", copy, "Hello", "--max-tokens", 1)]
    _refused(_ask(*lines), len(lines))


def test_beside_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    lines: list[tuple[object, ...]] = []
    for kind in KINDS:
        copy = shutil.copytree(checkpoint, tmp_path / kind.__name__)
        for name in ("README.md", "more.gguf"):
            (copy / name).unlink(missing_ok=True)
            kind(copy / name)
        lines += [("inspect", copy), ("run", copy, "Hello", "--max-tokens", 1)]
    found = _ask(*lines)
    assert [code for code, _ in found] == [0] * len(lines), found


def test_in_place_of_a_gguf(tmp_path: Path) -> None:
    lines: list[tuple[object, ...]] = []
    for kind in KINDS:
        folder = tmp_path / kind.__name__
        folder.mkdir()
        kind(folder / "tiny.gguf")
        second = folder / "split-00002-of-00002.gguf"
        kind(second)
        lines += [("inspect", folder / "tiny.gguf"), ("inspect", second)]
        alone = tmp_path / f"{kind.__name__}-alone"
        alone.mkdir()
        kind(alone / "tiny.gguf")
        lines += [("inspect", alone)]
    _refused(_ask(*lines), len(lines))


def test_in_place_of_the_list_of_artifacts(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "state" / "rockledge").mkdir(parents=True)
    _pipe(tmp_path / "state" / "rockledge" / "artifacts")
    lines: list[tuple[object, ...]] = [
        ("list",),
        ("quantize", checkpoint, "--instant", "-o", tmp_path / "out"),
        ("clean", "--yes"),
    ]
    assert [code for code, _ in _ask(*lines)] == [0, 0, 0]
