"""What cannot be pruned is said in one sentence, and whatever stops a run leaves nothing but what it is
finished with."""

import errno
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.model.checkpoints import write_gguf
from tests.pruning.conftest import Pruned
from tests.pruning.teachers import teacher

from rockledge.errors import CheckpointError, RockledgeError, UsageError
from rockledge.pruning import follow, targets
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


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("model.embed_tokens.weight", "embed"),
        ("model.layers.2.mlp.down_proj.weight", "layers.2.ffn.down"),
        ("model.layers.3.input_layernorm.weight", "layers.3.attn.norm"),
        ("model.norm.weight", "final_norm"),
    ],
)
def test_a_weight_that_is_not_finite_is_named(
    where: str, named: str, value: float, tmp_path: Path, pruned: Pruned
) -> None:
    source, _ = teacher(
        "llama-tied", tmp_path / "teacher", lambda m: m.get_parameter(where).view(-1)[5:6].fill_(value)
    )
    with pytest.raises(CheckpointError, match=rf"^{named} holds 1 values that are NaN or infinite"):
        pruned(source, layers=2)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "text.txt"}


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("model.layers.1.mlp.down_proj.weight", 3e38, "layer 1 of the teacher overflows"),
        ("model.layers.2.self_attn.o_proj.weight", 3e37, "layer 2 of the teacher overflows"),
        ("model.norm.weight", 1e38, "loss on the calibration text is not finite"),
    ],
)
def test_a_teacher_that_overflows_is_said(
    where: str, value: float, says: str, tmp_path: Path, pruned: Pruned
) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher", lambda m: m.get_parameter(where).fill_(value))
    with pytest.raises(CheckpointError, match=says):
        pruned(source, layers=2)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "text.txt"}


def test_a_student_that_overflows_is_not_written(
    tmp_path: Path, pruned: Pruned, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    monkeypatch.setattr(follow, "token_losses", lambda *_: torch.full((1, 7), torch.nan, dtype=torch.float64))
    for settings in ({"layers": 2}, {"body": 0.7}):
        with monkeypatch.context() as patched:
            patched.setattr(targets, "TOLERANCE", 0.3)
            with pytest.raises(
                RockledgeError, match="has no finite loss on the calibration text; prune less"
            ):
                pruned(source, **settings)
        assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("left", [0, 4, 8, 500, 250_000, -1])
def test_a_file_that_is_cut_short_is_said(left: int, tmp_path: Path, pruned: Pruned) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*(short|claims).*fetch it again"):
        pruned(source, layers=2)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "text.txt"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hidden_size": 128}, r"has shape \[80, 64\], expected \[80, 128\] from config\.json"),
        ({"num_hidden_layers": 5}, r"layers\.4\.input_layernorm\.weight is missing"),
        ({"num_hidden_layers": 3}, r"layers\.3\.input_layernorm\.weight does not belong"),
        ({"intermediate_size": 95}, r"gate_proj\.weight has shape"),
        ({"num_key_value_heads": 1}, r"k_proj\.weight has shape"),
        ({"vocab_size": 81}, r"embed_tokens\.weight has shape"),
        ({"tie_word_embeddings": False}, r"lm_head\.weight is missing"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_said(
    values: dict[str, Any], says: str, tmp_path: Path, pruned: Pruned
) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    file = source / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), **values}))
    with pytest.raises(CheckpointError, match=says):
        pruned(source, layers=2)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "text.txt"}


def test_room_is_asked_for_before_the_work(
    tmp_path: Path, pruned: Pruned, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(RockledgeError, match=r"takes \S+ \S+ of disk at .*student, but 10.* free"):
        pruned(source, layers=2)
    assert {path.name for path in tmp_path.iterdir()} == {"teacher", "text.txt"}


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, pruned: Pruned, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(RockledgeError, match=r"no space is left for .*student, nothing was put there"):
            pruned(source, layers=2)
    assert not (tmp_path / "student").exists()
    _, report = pruned(source, layers=2)
    assert report.reused == ("importance", "layers", "layers again", "layers together")
