"""Opening by path or Hub id: the right reader, and clear words when there is nothing to open."""

from pathlib import Path

import numpy as np
import pytest
from tests.model.checkpoints import random_model, save, write_gguf
from tests.model.hub_fixtures import hub
from tests.model.hub_stand_in import Hub

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import open_checkpoint

__all__ = ["hub"]  # a fixture


def test_files_and_directories_find_their_reader(tmp_path: Path) -> None:
    model = random_model("qwen3")
    directory = save(model, tmp_path / "hf")
    (tmp_path / "gguf").mkdir()
    file = write_gguf(tmp_path / "gguf/tiny.gguf", model)
    opened = [open_checkpoint(path) for path in (str(directory), file, file.parent)]
    assert [checkpoint.stored.split(",")[0] for checkpoint in opened] == ["safetensors", "GGUF", "GGUF"]
    assert opened[0].names() == opened[1].names()
    for name in opened[0].names():
        assert opened[0].shape(name) == opened[1].shape(name) == opened[1].tensor(name).shape


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="does not exist, expected a GGUF file, a Hugging Face directory"
    ):
        open_checkpoint(tmp_path / "none")


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"neither a config.json nor a .gguf file"):
        open_checkpoint(tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match="the directory that holds the safetensors"):
        open_checkpoint(tmp_path / "model.safetensors")


def test_hub_ids_are_fetched(tmp_path: Path, hub: Hub) -> None:
    directory = save(random_model("llama2"), tmp_path / "snapshot")
    hub.add("someone/some-model.v1", directory)
    there, here = open_checkpoint("someone/some-model.v1"), open_checkpoint(directory)
    assert there.names() == here.names()
    assert np.array_equal(there.tensor("embed"), here.tensor("embed"))


def test_a_hub_id_without_a_network_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=r"not a local path and could not be fetched.*check the name and the network"
    ):
        open_checkpoint("rockledge-tests/no-such-model")
