"""A file that is cut short under its mapping: a sentence and an exit code, whoever reads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rockledge.artifact.layout import TENSORS
from rockledge.synth import synth_artifact

PROGRAM = """
import os, sys, threading
import numpy as np
from rockledge.artifact import open_artifact
from rockledge.runtime.bus_error import explained_bus_errors
artifact = open_artifact(sys.argv[1])
with explained_bus_errors(artifact):
    os.truncate(sys.argv[2], 4096)
    readers = [threading.Thread(target=artifact.verify) for _ in range(3)]
    for reader in readers:
        reader.start()
    print(artifact.mapped.sum())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synth_artifact("toy", tmp_path / "toy", seed=2)


def test_a_file_cut_short_in_use_is_one_sentence(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, path / TENSORS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == f"rockledge: {path} was cut short while in use; fetch the artifact again\n"


def test_other_mappings_fail_as_ever(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 16))
    program = (
        "import mmap, os, sys; from rockledge.artifact import open_artifact\n"
        "from rockledge.runtime.bus_error import explained_bus_errors\n"
        "file = open(sys.argv[2], 'r+b'); mapped = mmap.mmap(file.fileno(), 0)\n"
        "with explained_bus_errors(open_artifact(sys.argv[1])):\n"
        "    os.truncate(sys.argv[2], 0); print(mapped[5000])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, other], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -7
    assert "cut short" not in done.stderr


def test_afterwards_the_handler_is_gone(path: Path) -> None:
    program = PROGRAM.replace("    os.trunc", "    pass\nif True:\n    os.trunc")
    done = subprocess.run(
        [sys.executable, "-c", program, path, path / TENSORS], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -7
    assert os.strerror(0) not in done.stderr


def test_of_several_artifacts_the_one_that_was_cut_short_is_named(path: Path, tmp_path: Path) -> None:
    others = [synth_artifact("toy", tmp_path / name, seed=3) for name in ("a", "b")]
    program = (
        "import os, sys; from rockledge.artifact import open_artifact\n"
        "from rockledge.runtime.bus_error import explained_bus_errors\n"
        "first, cut, gone = map(open_artifact, (sys.argv[1], *sys.argv[3:]))\n"
        "with explained_bus_errors(first), explained_bus_errors(cut):\n"
        "    with explained_bus_errors(gone): pass\n"
        "    os.truncate(sys.argv[2], 4096); print(cut.mapped.sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path, others[0] / TENSORS, *others],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"rockledge: {others[0]} was cut short while in use; fetch the artifact again\n"
