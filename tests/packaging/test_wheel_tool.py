"""`make wheel` where a compiler is missing: the rest is built, and a sentence names what is needed."""

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import wheel

HOME = platform.machine()
OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[HOME]

Run = Callable[..., tuple[int, list[str]]]


def both(*processors: str) -> list[str]:
    """The gateway's wheel and the laboratory's for each processor."""
    return [f"{name} {one}" for one in processors for name in ("rockledge", "rockledge_npu_lab")]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the tool where there are only the programs of this list; its exit code, and what it built.

    Building itself, which takes a minute, is the business of test_wheel.py and test_aarch64.py.
    """
    built: list[str] = []

    def build(package: wheel.Package, processor: str, out: Path) -> Path:
        built.append(f"{package.name} {processor}")
        out.mkdir(exist_ok=True)
        path = out / f"{package.name}-0-{processor}.whl"
        path.touch()
        return path

    def run(programs: list[str], *processors: str) -> tuple[int, list[str]]:
        for name in programs:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(wheel, "build", build)
        monkeypatch.setattr(wheel, "check", lambda *_: [])
        monkeypatch.setattr(sys, "argv", ["wheel.py", "--out", str(tmp_path / "dist"), *processors])
        return wheel.main(), built

    return run


def test_without_a_cross_compiler_the_home_wheel_is_made_and_one_sentence_said(
    made: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(["g++", "objdump"], "x86_64", "aarch64") == (0, both(HOME))
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"no {OTHER} wheel" in sentence
    assert f"apt-get install g++-{OTHER.replace('_', '-')}-linux-gnu" in sentence


def test_with_a_cross_compiler_both_are_made(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cross = [f"{OTHER}-linux-gnu-{name}" for name in ("g++", "objdump")]
    assert made(["g++", "objdump", *cross], "x86_64", "aarch64") == (
        0,
        both("x86_64", "aarch64"),
    )
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("programs, asked", [(["g++", "objdump"], [OTHER]), ([], [HOME, OTHER])])
def test_no_wheel_at_all_is_a_failure(
    made: Run, programs: list[str], asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(programs, *asked) == (1, [])
    assert len(capsys.readouterr().err.splitlines()) == len(asked)
