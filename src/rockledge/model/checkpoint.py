"""Opening a source model: whatever it is stored as, it becomes canonical names and float32 arrays."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.config import ModelConfig
from rockledge.model.gguf_reader import GgufCheckpoint
from rockledge.model.gguf_split import first_parts
from rockledge.model.hub import hub_name
from rockledge.model.hub_fetch import fetch
from rockledge.model.huggingface import HuggingFaceCheckpoint
from rockledge.model.unreadable import holds_safetensors, refuse_adapter, refuse_other_file, why_no_model
from rockledge.places import expanded


class Checkpoint(Protocol):
    """A float model on disk, under canonical names ("embed", "layers.3.attn.q", ...)."""

    @property
    def path(self) -> Path:
        """The file or directory it was opened from."""

    @property
    def config(self) -> ModelConfig:
        """The numbers that define the model."""

    @property
    def stored(self) -> str:
        """For people: "safetensors, bfloat16" or "GGUF, Q4_1 and Q8_0 matrices"."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was guessed or is unusual, for `inspect`, `quantize` and the report."""

    def names(self) -> list[str]:
        """Every tensor, in the order of `stored_tensors`."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor without reading it; linears are (outputs, inputs)."""

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor, C-contiguous; read afresh at every call. CheckpointError if damaged or not finite."""

    def files(self) -> dict[str, bytes]:
        """The small files an artifact carries along: config.json, tokenizer.json, tokenizer_config.json,
        generation_config.json, chat_template.jinja, those that exist. CheckpointError without a tokenizer."""


class StoredCheckpoint(Checkpoint, Protocol):
    """A checkpoint in files, whose matrices need not be in memory whole."""

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        """Rows `first` .. `first + count - 1` of a matrix, as `tensor` gives them."""


def open_checkpoint(path_or_hub_id: str | Path) -> StoredCheckpoint:
    """Opens a GGUF file, a Hugging Face directory, or a Hub id "owner/name" or "owner/name:file.gguf"
    (fetched once through huggingface_hub).

    Headers and the small files are read and checked here; tensors are read one at a time by
    `Checkpoint.tensor`.
    """
    found = model_at(find_checkpoint(path_or_hub_id))
    return GgufCheckpoint.open(found) if found.is_file() else HuggingFaceCheckpoint.open(found)


def model_at(path: Path) -> Path:
    """The GGUF file or Hugging Face directory that is opened where `path` is given: itself, or the one GGUF
    model in that directory. CheckpointError says what there is instead; no file is read whole for it."""
    if path.is_file():
        refuse_other_file(path)
        return path
    if not path.is_dir():
        raise CheckpointError(
            f"{path} is a device or a pipe, expected a GGUF file or the directory of a Hugging Face model"
        )
    refuse_adapter(path)
    if (path / "config.json").is_file() and holds_safetensors(path):
        return path
    there = sorted(path.glob("*.gguf"))
    models = first_parts(there)
    if len(models) > 1:
        raise CheckpointError(
            f"{path} holds {len(models)} GGUF models ({', '.join(m.name for m in models[:4])}); name "
            "one of them"
        )
    if models and not models[0].is_file():
        raise CheckpointError(
            f"{path} has a {models[0].name} that is not a file; put the model itself there"
            if models[0] in there
            else f"{path} holds a part of a split GGUF, but not {models[0].name}; fetch all parts"
        )
    if models:
        return models[0]
    raise CheckpointError(why_no_model(path))


def find_checkpoint(path_or_hub_id: str | Path) -> Path:
    """The file or directory of a path or of a Hub id, which is fetched. CheckpointError if there is none."""
    path = expanded(path_or_hub_id)
    if path.exists():
        return path
    name = hub_name(str(path_or_hub_id))
    if name is None:
        raise CheckpointError(
            f"{path_or_hub_id} does not exist, expected a GGUF file, a Hugging Face directory or a Hub "
            "id such as HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    return fetch(name)
