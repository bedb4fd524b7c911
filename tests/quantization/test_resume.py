"""A run that is killed continues in its work directory and ends in the same bytes; other runs stay out."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rockledge.errors import UsageError
from rockledge.quantization.pipeline import quantize
from rockledge.synth import SHAPES, synth_checkpoint

TOKENS = 1024
SETTINGS: dict[str, Any] = {"bits": 5.0, "tokens": TOKENS, "seed": 3}
# Kills itself, as nothing can catch, at the given step of a stage.
KILLED = """
import os, signal, sys
import torch
from rockledge.quantization.pipeline import quantize

torch.set_num_threads(1)
source, out, work, stage, step = sys.argv[1:]

def progress(at, done, total):
    if at == stage and done == int(step):
        os.kill(os.getpid(), signal.SIGKILL)

quantize(source, out, bits=5.0, tokens=1024, seed=3, work=work, progress=progress)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Four blocks, untied: every stage has a middle.
    config = replace(SHAPES["toy"], layers=4, tied=False)
    return synth_checkpoint(config, tmp_path_factory.mktemp("resume") / "model")


@pytest.fixture(scope="module")
def whole(source: Path) -> dict[str, str]:
    """The artifact of a run that nobody stopped, without a work directory of its own."""
    quantize(source, source.parent / "whole", **SETTINGS)
    return contents(source.parent / "whole")


def contents(artifact: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in artifact.iterdir()
        if file.name != "report.md"
    }


def kill_at(source: Path, folder: Path, stage: str, step: int) -> None:
    arguments = [source, folder / "out", folder / "work", stage, step]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -signal.SIGKILL


def stages_seen(source: Path, folder: Path, **settings: Any) -> list[tuple[str, int]]:
    """Continues and returns the steps that were still done."""
    seen: list[tuple[str, int]] = []
    quantize(
        source,
        folder / "out",
        **{**SETTINGS, **settings},
        work=folder / "work",
        progress=lambda stage, done, total: seen.append((stage, done)),
        overwrite=True,
    )
    return seen


@pytest.mark.parametrize(
    ("stage", "step", "left"),
    [
        ("forward", 2, ("forward", 3)),
        ("round", 3, ("round", 4)),
        ("write", 5, ("check", 1)),
    ],
)
def test_a_killed_run_continues_and_makes_the_same_bytes(
    source: Path, whole: dict[str, str], tmp_path: Path, stage: str, step: int, left: tuple[str, int]
) -> None:
    kill_at(source, tmp_path, stage, step)
    assert not (tmp_path / "out").exists()
    assert stages_seen(source, tmp_path)[0] == left
    assert contents(tmp_path / "out") == whole


def test_a_run_may_be_killed_again_and_again(source: Path, whole: dict[str, str], tmp_path: Path) -> None:
    for stage, step in (("forward", 4), ("round", 1), ("round", 5)):
        kill_at(source, tmp_path, stage, step)
    assert stages_seen(source, tmp_path)[0][0] == "check"
    assert contents(tmp_path / "out") == whole


def test_what_was_half_written_is_swept_away(source: Path, whole: dict[str, str], tmp_path: Path) -> None:
    kill_at(source, tmp_path, "round", 2)
    half = tmp_path / "work" / ".layers.1.attn.q.npz.partial"
    half.write_bytes(b"half")
    stages_seen(source, tmp_path)
    assert not half.exists()
    assert contents(tmp_path / "out") == whole


def test_another_budget_starts_from_the_prices(source: Path, tmp_path: Path) -> None:
    stages_seen(source, tmp_path)
    seen = stages_seen(source, tmp_path, bits=6.0)
    assert {stage for stage, _ in seen} == {"check", "write"}
    quantize(source, tmp_path / "fresh", **{**SETTINGS, "bits": 6.0})
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_another_request_in_the_same_directory_is_refused(source: Path, tmp_path: Path) -> None:
    stages_seen(source, tmp_path)
    before = contents(tmp_path / "work")
    other = synth_checkpoint("toy", tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i:07d} " for i in range(4000)))
    for settings, named in (
        ({"seed": 4}, "seed"),
        ({"tokens": 2048}, "calibration"),
        ({"calibration": text}, "calibration"),
    ):
        with pytest.raises(UsageError, match=rf"belongs to another run.*{named}"):
            stages_seen(source, tmp_path, **settings)
    with pytest.raises(UsageError, match="model"):
        stages_seen(other, tmp_path)
    assert contents(tmp_path / "work") == before


def test_a_directory_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds other files"):
        stages_seen(source, tmp_path)
    assert contents(tmp_path / "work").keys() == {"thesis.txt"}


def test_two_runs_do_not_share_a_directory(source: Path, tmp_path: Path) -> None:
    def second(stage: str, done: int, total: int) -> None:
        quantize(source, tmp_path / "second", **SETTINGS, work=tmp_path / "work")

    with pytest.raises(UsageError, match="another run is working"):
        quantize(source, tmp_path / "out", **SETTINGS, work=tmp_path / "work", progress=second)
