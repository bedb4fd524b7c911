"""The command that a sentence about a missing package names installs it, and where this program finds it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement

from rockledge.pip_command import extra_requirements, pip_install

EXTRAS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


@pytest.mark.parametrize("extra", ["quantize", "hub", "serve"])
def test_an_extra_is_named_by_its_packages(extra: str) -> None:
    found = {str(Requirement(one)) for one in extra_requirements(extra)}
    assert found == {str(Requirement(one)) for one in EXTRAS[extra]}


def test_the_shell_passes_requirements_on_as_they_are() -> None:
    command = shlex.split(pip_install("torch==2.13.0", "scipy>=1.13"))
    assert command[-3:] == ["install", "torch==2.13.0", "scipy>=1.13"]


@pytest.mark.parametrize("active", [True, False])
def test_pip_is_the_one_of_this_environment(
    active: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own" / "bin", tmp_path / "an other" / "bin"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "pip").write_text('#!/bin/sh\necho "$0"\n')
        (folder / "pip").chmod(0o755)
    (own / "python").write_text('#!/bin/sh\n[ "$1 $2" = "-m pip" ] && echo "$(dirname "$0")/pip"\n')
    (own / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    path = [own, other] if active else [other, own]
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, path), os.environ["PATH"]]))
    done = subprocess.run(pip_install("x"), shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(own / "pip")
    assert (pip_install("x") == "pip install x") == active
