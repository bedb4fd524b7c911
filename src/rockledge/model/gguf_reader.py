"""Reader of GGUF files: configuration from metadata, tensors dequantised, tokenizer as ordinary files."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.agreement import check_agreement
from rockledge.model.bos_eos import bos_and_eos
from rockledge.model.config import ModelConfig, check_config
from rockledge.model.family import FAMILIES, Family, StoredTensor, stored_tensors
from rockledge.model.finite import require_finite
from rockledge.model.gguf_file import GgufFile, can_dequantise
from rockledge.model.gguf_keys import check_metadata
from rockledge.model.gguf_split import open_gguf_model
from rockledge.model.gguf_tokenizer import tokenizer_facts, tokenizer_files, tokenizer_notes
from rockledge.model.hf_config import config_to_hf
from rockledge.model.limits import check_size
from rockledge.model.rope import rope_divisors
from rockledge.model.tied import head_is_tied

_ROPE_FREQUENCIES = "rope_freqs.weight"
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class GgufCheckpoint:
    """One GGUF model. Q and K of architectures that interleave rotary pairs are put back into halves."""

    path: Path
    config: ModelConfig
    stored: str
    notes: tuple[str, ...]
    tensors: dict[str, StoredTensor]
    file: GgufFile

    @classmethod
    def open(cls, path: Path) -> "GgufCheckpoint":
        """Reads and checks the header, of all parts where the model is split; CheckpointError says what does
        not fit."""
        file = open_gguf_model(path)
        family = _family(file)
        config, notes = _config(file, family)
        tensors = {tensor.name: tensor for tensor in stored_tensors(config)}
        _check_tensors(file, tensors, tied=config.tied)
        kinds = sorted({file.tensors[t.gguf].kind for t in tensors.values() if len(t.shape) == 2})
        stored = f"GGUF, {' and '.join(kinds)} matrices"
        return cls(path, config, stored, (*notes, *_notes(file, config)), tensors, file)

    def names(self) -> list[str]:
        """Canonical names, in the order of the forward pass."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.tensors[name].shape

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor, dequantised; CheckpointError if it is not finite."""
        tensor = self.tensors[name]
        values = require_finite(name, self.file.read(tensor.gguf))
        if tensor.rotary_heads and FAMILIES[self.config.family].gguf_interleaved:
            values = deinterleave(values, tensor.rotary_heads)
        return values

    def files(self) -> dict[str, bytes]:
        """config.json and the tokenizer's files, made from the metadata."""
        config = json.dumps(config_to_hf(self.config), indent=2).encode()
        return {"config.json": config, **tokenizer_files(self.path.name, self.file.metadata, self.config)}


def _notes(file: GgufFile, config: ModelConfig) -> tuple[str, ...]:
    if "tokenizer.ggml.tokens" not in file.metadata:
        return ("The file holds no tokenizer, and without one the model can only be inspected.",)
    files = tokenizer_files(file.path.name, file.metadata, config)
    return (*tokenizer_notes(file.metadata), *check_agreement(files, config))


def deinterleave(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head from neighbouring rotary pairs (0, 0', 1, 1', ...) to halves (0, 1, ..)."""
    rest = values.shape[1:]
    return np.ascontiguousarray(values.reshape(heads, -1, 2, *rest).swapaxes(1, 2)).reshape(values.shape)


def _family(file: GgufFile) -> Family:
    meta = file.metadata
    if meta.get("general.type") == "adapter" or "adapter.type" in meta:
        raise CheckpointError(
            f"{file.path.name} is an adapter (LoRA), not a model; merge it into its base model and give "
            "the result"
        )
    found = meta.get("general.architecture")
    family = next((f for f in FAMILIES.values() if f.gguf is not None and f.gguf == found), None)
    if family is None:
        known = ", ".join(f.gguf for f in FAMILIES.values() if f.gguf)
        raise CheckpointError(f"the GGUF architecture {found!r} is not supported; supported are {known}")
    return family


def _config(file: GgufFile, family: Family) -> tuple[ModelConfig, list[str]]:
    meta = file.metadata
    keys = _Keys(file.path.name, str(family.gguf), meta)
    hidden, heads = keys.count("embedding_length"), keys.count("attention.head_count")
    head_dim = keys.count("attention.key_length", hidden // heads)
    if (
        keys.count("attention.value_length", head_dim) != head_dim
        or keys.count("rope.dimension_count", head_dim) != head_dim
    ):
        raise CheckpointError(
            f"{file.path.name}: keys, values and rotary parts of different sizes are not supported"
        )
    if keys.count("expert_count", 0, least=0):
        raise CheckpointError(f"{file.path.name} is a mixture of experts, which is not supported")
    embedding, head = file.tensors.get(_EMBEDDING), file.tensors.get(_HEAD)
    if embedding is None:
        raise CheckpointError(f"{file.path.name}: the tensor {_EMBEDDING} is missing; fetch the file again")
    vocab = embedding.shape[0]
    if keys.count("vocab_size", vocab) != vocab:
        raise CheckpointError(
            f"{file.path.name}: {family.gguf}.vocab_size is {keys.count('vocab_size')}, but {_EMBEDDING} has "
            f"{vocab} rows; the file is damaged, fetch it again"
        )
    layers = keys.count("block_count")
    if layers > len(file.tensors):
        raise CheckpointError(
            f"{file.path.name} holds {len(file.tensors)} tensors, too few for {layers} layers"
        )
    check_size("head_dim", head_dim)
    notes = check_metadata(file.path.name, str(family.gguf), meta, head_dim)
    context = keys.count("context_length")
    window = keys.count("attention.sliding_window", 0, least=0) or context
    if keys.get("attention.sliding_window_pattern") in (1, False):  # no layer has the window
        window = context
    if window < context:
        notes.append(
            f"{file.path.name} has a sliding window of {window} tokens; the context is cut to it from "
            f"{context}, "
            "because every layer here attends to all earlier tokens."
        )
    special = bos_and_eos([], tokenizer_facts(meta), vocab)
    same_type = head is not None and (head.kind, head.shape) == (embedding.kind, embedding.shape)
    tied = head is None or (same_type and head_is_tied(True, file.blocks(_EMBEDDING), file.blocks(_HEAD)))
    config = ModelConfig(
        family=family.name,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=keys.count("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn=keys.count("feed_forward_length"),
        vocab=vocab,
        norm_eps=keys.real("attention.layer_norm_rms_epsilon"),
        rope_theta=keys.real("rope.freq_base", 10000.0),
        rope_divisors=_divisors(file, keys, head_dim),
        tied=tied,
        context=min(context, window),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        bos=special.bos,
        eos=special.eos,
    )
    return check_config(config), [*notes, *special.notes]


@dataclass(frozen=True)
class _Keys:
    """The architecture's metadata with types checked; a list is accepted where all layers agree."""

    file: str
    architecture: str
    metadata: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            return value[0]
        return value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise CheckpointError(
                f"{self.file}: {self.architecture}.{key} is {str(value)[:60]}, expected one whole number "
                f"for all layers"
            )
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise CheckpointError(
                f"{self.file}: {self.architecture}.{key} is {str(value)[:60]}, expected a number"
            )
        return float(value)


def _divisors(file: GgufFile, keys: _Keys, head_dim: int) -> tuple[float, ...]:
    """Divisors of the rotary frequencies, as llama.cpp reads them (load_hparams in src/llama-model.cpp): a
    factor without a type is linear, `rope.scale_linear` is its older name, and 0 means none."""
    scaling = str(keys.get("rope.scaling.type", "linear"))
    factor = keys.real("rope.scaling.factor", keys.real("rope.scale_linear", 0.0))
    if scaling not in ("none", "linear"):
        raise CheckpointError(
            f'{file.path.name}: RoPE scaling of type "{scaling[:40]}" is not supported; supported are none, '
            "linear and the llama3 frequencies that GGUF stores as a tensor"
        )
    linear = scaling == "linear" and factor != 0
    divisors = rope_divisors(
        {"rope_type": "linear", "factor": factor} if linear else {},
        head_dim,
        keys.real("rope.freq_base", 10000.0),
    )
    if _ROPE_FREQUENCIES not in file.tensors:
        return divisors
    if file.tensors[_ROPE_FREQUENCIES].shape != (head_dim // 2,):
        raise CheckpointError(
            f"{file.path.name}: {_ROPE_FREQUENCIES} does not have {head_dim // 2} values; fetch it again"
        )
    values = require_finite(_ROPE_FREQUENCIES, file.read(_ROPE_FREQUENCIES))
    return tuple(float(v) * d for v, d in zip(values, divisors, strict=True))


def _check_tensors(file: GgufFile, tensors: dict[str, StoredTensor], *, tied: bool) -> None:
    for tensor in tensors.values():
        if tensor.gguf not in file.tensors:
            raise CheckpointError(
                f"{file.path.name}: the tensor {tensor.gguf} is missing; fetch the file again"
            )
        shape = file.tensors[tensor.gguf].shape
        if shape != tensor.shape:
            raise CheckpointError(
                f"{file.path.name}: {tensor.gguf} has shape {list(shape)}, "
                f"expected {list(tensor.shape)} from the metadata; the file is damaged, fetch it again"
            )
    passed_over = {_ROPE_FREQUENCIES, *([_HEAD] if tied else [])}
    for name in sorted(set(file.tensors) - {t.gguf for t in tensors.values()} - passed_over):
        raise CheckpointError(
            f"{file.path.name}: the tensor {name[:60]} does not belong to this architecture"
        )
    for kind, code in sorted({(t.kind, t.code) for t in file.tensors.values()}):
        if not can_dequantise(code):
            raise CheckpointError(
                f"{file.path.name}: tensors of type {kind} cannot be dequantised; use another file"
            )
