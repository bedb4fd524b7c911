"""Reader of Hugging Face directories: config.json, safetensors in one or several files, tokenizer files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.agreement import check_agreement
from rockledge.model.chat import template_sources, with_named_templates
from rockledge.model.checkpoint import require_finite
from rockledge.model.config import ModelConfig, config_from_hf
from rockledge.model.family import StoredTensor, stored_tensors
from rockledge.model.safetensors_file import SafetensorsFile, open_safetensors

_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)

# What other quantisers leave behind even where config.json says nothing: a file, or a tensor-name ending.
_TRACES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".weight_packed": "compressed-tensors",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
    ".weight_scale": "compressed-tensors or FP8",
    ".weight_scale_inv": "FP8",
}


@dataclass(frozen=True)
class HuggingFaceCheckpoint:
    """A directory as `save_pretrained` writes it; `sources` says which file holds which tensor."""

    path: Path
    config: ModelConfig
    stored: str
    tensors: dict[str, StoredTensor]
    sources: dict[str, SafetensorsFile]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path) -> "HuggingFaceCheckpoint":
        """Reads and checks every header of the directory; CheckpointError says what does not fit."""
        for trace, scheme in _TRACES.items():
            if (path / trace).is_file():
                raise _already_quantised(path, scheme)
        generation = path / "generation_config.json"
        config = config_from_hf(
            _json(path / "config.json"), _json(generation) if generation.is_file() else None
        )
        held = {name: file for file in _open_files(path) for name in file.entries}
        for name in held:
            for trace, scheme in _TRACES.items():
                if name.endswith(trace):
                    raise _already_quantised(path, scheme)
        # Checked before the names are listed, so that a damaged layer count cannot make the list enormous.
        if config.layers > len(held):
            raise CheckpointError(f"{path} holds {len(held)} tensors, too few for {config.layers} layers")
        tensors = {tensor.name: tensor for tensor in stored_tensors(config)}
        _check_tensors(path, config, tensors, held)
        types = {held[t.hf].entries[t.hf].float_name or "" for t in tensors.values()}
        return cls(
            path,
            config,
            "safetensors, " + " and ".join(sorted(types)),
            tensors,
            {t.name: held[t.hf] for t in tensors.values()},
            _notes(path, config),
        )

    def names(self) -> list[str]:
        """Canonical names, in the order of the forward pass."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.tensors[name].shape

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32; CheckpointError if it is not finite."""
        return require_finite(name, self.sources[name].read(self.tensors[name].hf))

    def files(self) -> dict[str, bytes]:
        """The configuration, tokenizer and chat files of the directory that exist."""
        if not (self.path / "tokenizer.json").is_file():
            hint = (
                "; it has only a SentencePiece tokenizer.model: load it with transformers' AutoTokenizer "
                "and save it"
                if (self.path / "tokenizer.model").is_file()
                else "; copy it from the original model"
            )
            raise CheckpointError(f"{self.path} has no tokenizer.json{hint}")
        return _small_files(self.path)


def _small_files(path: Path) -> dict[str, bytes]:
    found = {name: (path / name).read_bytes() for name in _FILES if (path / name).is_file()}
    named = {
        file.stem: file.read_bytes() for file in sorted((path / "additional_chat_templates").glob("*.jinja"))
    }
    return with_named_templates(found, named)


def _notes(path: Path, config: ModelConfig) -> tuple[str, ...]:
    files = _small_files(path)
    if "tokenizer.json" not in files:
        return ("There is no tokenizer.json, and without it the model can only be inspected.",)
    notes = check_agreement(files, config)
    if (path / "chat_template.json").is_file() and not template_sources(files):
        notes += (
            "The file chat_template.json belongs to an image processor and is not read, so there is no chat.",
        )
    return notes


def _already_quantised(path: Path, scheme: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is already quantised ({scheme}); Rockledge needs the original bfloat16, float16 or "
        f"float32 weights"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON; fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch it again")
    return value


def _open_files(path: Path) -> list[SafetensorsFile]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        weights = _json(index).get("weight_map")
        if (
            not isinstance(weights, dict)
            or not weights
            or not all(isinstance(n, str) and n == Path(n).name for n in weights.values())
        ):
            raise CheckpointError(f"{index} has no weight_map of plain file names; fetch it again")
        names = sorted(set(weights.values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if not (path / name).is_file():
            raise CheckpointError(
                f"{path} has no {name}; expected safetensors (pickled .bin checkpoints are not read: "
                f"convert them)"
            )
    files = [open_safetensors(path / name) for name in names]
    if any("rockledge" in file.metadata for file in files):
        raise CheckpointError(f"{path} is a Rockledge artifact; give the checkpoint it was made from")
    return files


def _check_tensors(
    path: Path, config: ModelConfig, tensors: dict[str, StoredTensor], held: dict[str, SafetensorsFile]
) -> None:
    expected = {tensor.hf for tensor in tensors.values()}
    for tensor in tensors.values():
        if tensor.hf not in held:
            raise CheckpointError(f"{path}: the tensor {tensor.hf} is missing; fetch the checkpoint again")
        entry = held[tensor.hf].entries[tensor.hf]
        if entry.shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {tensor.hf} has shape {list(entry.shape)}, config.json makes it "
                f"{list(tensor.shape)}"
            )
        if entry.float_name is None:
            raise CheckpointError(
                f"{path}: {tensor.hf} holds {entry.dtype}, expected BF16, F16 or F32: use the original, "
                "unquantised checkpoint"
            )
    # Old files carry the rotary frequencies, and tied ones may repeat the embedding as lm_head; anything else
    # is a part of the model that would silently be left out.
    for name in sorted(set(held) - expected):
        if not name.endswith("rotary_emb.inv_freq") and not (config.tied and name == "lm_head.weight"):
            raise CheckpointError(
                f"{path}: the tensor {name} does not belong to the family {config.family!r}"
            )
