"""The model that `rockledge plan` is asked about: only its configuration is needed, not its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rockledge.errors import CheckpointError
from rockledge.places import expanded

if TYPE_CHECKING:
    from rockledge.model.config import ModelConfig


@dataclass(frozen=True)
class PlannedModel:
    """`name` for people, `source` where the shape is from, `quantizable` what `quantize` takes for it, None
    for an artifact; `notes` about what was guessed."""

    name: str
    config: ModelConfig
    source: str
    quantizable: str | None
    notes: tuple[str, ...] = ()


def planned_model(model: str) -> PlannedModel:
    """The model `model`: a path (config.json, a checkpoint, an artifact, a GGUF file), a well-known name, a
    name that `rockledge list` shows, or a Hub id, of which only config.json is fetched. CheckpointError."""
    from rockledge.model.hub import hub_name
    from rockledge.model.hub_fetch import fetch_config, fetched
    from rockledge.model.known_shapes import find_shape, nearest_shapes

    path = expanded(model)
    if path.exists():
        return _at(path, model)
    if known := find_shape(model):
        return PlannedModel(model.rpartition("/")[2], known.config, known.source, known.source)
    name = hub_name(model)
    if name is None:
        from rockledge.cli.known_models import find_known

        if kept := find_known(model):
            return _at(kept.path, model)
        near = nearest_shapes(model)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise CheckpointError(
            f"{model} does not exist, expected a config.json, a checkpoint, a Hub id or a well-known name "
            f"such as llama-3-8b{hint}"
        )
    if whole := fetched(name):
        return _at(whole, model)
    return _alone(fetch_config(name), name.id.rpartition("/")[2], model)


def _at(path: Path, model: str) -> PlannedModel:
    from rockledge.cli.inspect import is_artifact
    from rockledge.model.checkpoint import model_at, open_checkpoint
    from rockledge.model.gguf_reader import read_header
    from rockledge.model.gguf_split import part_names
    from rockledge.model.source import source_name
    from rockledge.model.unreadable import holds_safetensors

    if path.is_dir() and is_artifact(path):
        return _artifact(path)
    if path.suffix == ".json" and path.is_file():
        return _alone(path, path.absolute().parent.name, str(path.parent))
    if (path / "config.json").is_file() and not holds_safetensors(path):
        return _alone(path, path.absolute().name, model)
    found = model_at(path)
    if found.is_file() and len(part_names(found.name)) == 1:
        config, notes = read_header(found)
        return PlannedModel(source_name(path), config, str(found), model, notes)
    checkpoint = open_checkpoint(found)
    return PlannedModel(source_name(path), checkpoint.config, str(path), model, checkpoint.notes)


def _artifact(path: Path) -> PlannedModel:
    from rockledge.artifact import open_artifact
    from rockledge.planning.fit import bits_of
    from rockledge.units import show_size

    artifact = open_artifact(path)
    size = artifact.tensor_bytes
    note = (
        f"{path} is an artifact of {bits_of(artifact.config, size):.2f} bits a weight ({show_size(size)}); "
        "the plan is for one that is made anew"
    )
    return PlannedModel(path.name, artifact.config, str(path), None, (note,))


def _alone(path: Path, name: str, quantizable: str) -> PlannedModel:
    from rockledge.model.huggingface import read_config_alone

    read = read_config_alone(path)
    return PlannedModel(name or "model", read.config, str(path), quantizable, read.notes)
