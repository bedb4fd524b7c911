"""What cannot be pruned is said in one sentence, and whatever stops a run leaves nothing but what it is
finished with."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.model.checkpoints import write_gguf
from tests.pruning.conftest import Pruned
from tests.pruning.teachers import teacher

from rockledge.errors import CheckpointError, RockledgeError, UsageError
from rockledge.pruning import prune as pipeline
from rockledge.pruning.prune import prune
from rockledge.pruning.request import request_of
from rockledge.synth import synth_artifact


@pytest.mark.usefixtures("drawn")  # or undoing would undo that too
def test_a_failure_leaves_nothing_half_done(
    tmp_path: Path, pruned: Pruned, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    before = {path.name for path in tmp_path.iterdir()}
    finished = {".student.prune"}

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stopped(*_: object) -> float:
        raise KeyboardInterrupt

    for place, name, instead, error, says in (
        (os, "pwrite", full, RockledgeError, "no space is left"),
        (shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000), RockledgeError, "of disk at"),
        (pipeline, "loss_of", stopped, KeyboardInterrupt, None),
    ):
        monkeypatch.setattr(place, name, instead)
        with pytest.raises(error, match=says):
            pruned(source, layers=2)
        monkeypatch.undo()
        assert {path.name for path in tmp_path.iterdir()} - finished == before


def test_what_is_not_a_teacher_names_the_way_out(tmp_path: Path) -> None:
    source, model = teacher("llama-tied", tmp_path / "teacher")
    asked, out = request_of({"layers": 2}), tmp_path / "out"
    with pytest.raises(CheckpointError, match="the checkpoint that it was made from"):
        prune(synth_artifact("toy", tmp_path / "artifact"), out, asked)
    with pytest.raises(CheckpointError, match="is a GGUF file, expected a Hugging Face checkpoint"):
        prune(write_gguf(tmp_path / "tiny.gguf", model), out, asked)
    with pytest.raises(UsageError, match="not empty"):
        prune(source, source, asked)
    assert not out.exists()


def test_a_text_shorter_than_a_sequence_is_refused(tmp_path: Path) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(UsageError, match="one sequence needs"):
        prune(source, tmp_path / "out", request_of({"layers": 2, "calibration": short}), force=True)
