"""An export appears whole or not at all, and says what is wrong with what it is given."""

import errno
import os
from pathlib import Path

import pytest
from tests.export.artifacts import converted, held

from rockledge.artifact import placed_file
from rockledge.artifact.publish import UnwritableError
from rockledge.cli.export import _TARGETS
from rockledge.errors import ArtifactError, UsageError
from rockledge.export.request import ExportRequest
from rockledge.export.targets import TARGETS, export


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(held("llama-biases"), tmp_path_factory.mktemp("made") / "artifact")


def test_the_command_knows_every_target() -> None:
    assert tuple(TARGETS) == _TARGETS


@pytest.mark.parametrize(
    "to, kind, said",
    [
        ("onnx", "", "there is no target 'onnx', expected one of hf, gguf, rknn"),
        ("hf", "q8_0", "hf has no type 'q8_0', expected one of bf16, f16, f32"),
        ("gguf", "q4_k", "gguf has no type 'q4_k', expected one of nearest"),
    ],
)
def test_unknown_targets_and_types_are_named(
    to: str, kind: str, said: str, artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        export(artifact, tmp_path / "out", to, ExportRequest(kind))
    assert not os.listdir(tmp_path)


def test_what_is_there_stays(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(UsageError, match="is there and not empty"):
        export(artifact, tmp_path / "out", "hf", ExportRequest("f32"))
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_a_damaged_artifact_is_not_exported(tmp_path: Path) -> None:
    path = converted(held("llama-biases"), tmp_path / "artifact")
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    with pytest.raises(ArtifactError, match="is damaged: the checksum of"):
        export(path, tmp_path / "out", "gguf", ExportRequest("f32"))
    assert os.listdir(tmp_path) == ["artifact"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_nothing(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(placed_file.os, "posix_fallocate", full)
        with pytest.raises(UnwritableError, match="no space is left for"):
            export(artifact, tmp_path / "out", "hf", ExportRequest("f32"))
    with monkeypatch.context() as patch:
        patch.setattr("gguf.GGUFWriter.write_tensor_data", full)
        with pytest.raises(UnwritableError, match="no space is left for"):
            export(artifact, tmp_path / "out", "gguf", ExportRequest("f32"))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_an_interrupted_export_leaves_nothing(
    to: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(artifact, tmp_path / "out", to, ExportRequest("f32", progress=interrupted))
    assert not os.listdir(tmp_path)
