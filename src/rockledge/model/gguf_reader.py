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
from rockledge.model.checkpoint import require_finite
from rockledge.model.config import ModelConfig, check_config, config_to_hf
from rockledge.model.family import FAMILIES, StoredTensor, stored_tensors
from rockledge.model.gguf_file import GgufFile, can_dequantise, open_gguf
from rockledge.model.gguf_tokenizer import special_ids, tokenizer_files
from rockledge.model.limits import check_size

_ROPE_FREQUENCIES = "rope_freqs.weight"


@dataclass(frozen=True)
class GgufCheckpoint:
    """One GGUF file. Q and K of architectures that interleave rotary pairs are put back into halves."""

    path: Path
    config: ModelConfig
    stored: str
    tensors: dict[str, StoredTensor]
    file: GgufFile

    @classmethod
    def open(cls, path: Path) -> "GgufCheckpoint":
        """Reads and checks the header; CheckpointError says what does not fit."""
        file = open_gguf(path)
        config = _config(file)
        tensors = {tensor.name: tensor for tensor in stored_tensors(config)}
        _check_tensors(file, tensors)
        kinds = sorted({file.tensors[t.gguf].kind for t in tensors.values() if len(t.shape) == 2})
        return cls(path, config, f"GGUF, {' and '.join(kinds)} matrices", tensors, file)

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


def deinterleave(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head from neighbouring rotary pairs (0, 0', 1, 1', ...) to halves (0, 1, ..)."""
    rest = values.shape[1:]
    return np.ascontiguousarray(values.reshape(heads, -1, 2, *rest).swapaxes(1, 2)).reshape(values.shape)


def _config(file: GgufFile) -> ModelConfig:
    meta = file.metadata
    found = meta.get("general.architecture")
    family = next((f for f in FAMILIES.values() if f.gguf is not None and f.gguf == found), None)
    if family is None:
        known = ", ".join(f.gguf for f in FAMILIES.values() if f.gguf)
        raise CheckpointError(f"the GGUF architecture {found!r} is not supported; supported are {known}")
    if meta.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{file.path.name} is one part of a split GGUF; merge the parts into one file first"
        )
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
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError(
            f"{file.path.name}: the tensor token_embd.weight is missing; fetch the file again"
        )
    layers = keys.count("block_count")
    if layers > len(file.tensors):
        raise CheckpointError(
            f"{file.path.name} holds {len(file.tensors)} tensors, too few for {layers} layers"
        )
    check_size("head_dim", head_dim)
    context = keys.count("context_length")
    bos, eos = special_ids(meta)
    return check_config(
        ModelConfig(
            family=family.name,
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=keys.count("attention.head_count_kv", heads),
            head_dim=head_dim,
            ffn=keys.count("feed_forward_length"),
            vocab=embedding.shape[0],
            norm_eps=keys.real("attention.layer_norm_rms_epsilon"),
            rope_theta=keys.real("rope.freq_base", 10000.0),
            rope_divisors=_divisors(file, keys, head_dim),
            tied="output.weight" not in file.tensors,
            context=min(context, keys.count("attention.sliding_window", context)),
            qkv_bias=family.qkv_bias,
            qk_norm=family.qk_norm,
            bos=bos,
            eos=eos,
        )
    )


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
    scaling = keys.get("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise CheckpointError(
            f'{file.path.name}: RoPE scaling of type "{scaling}" is not supported; supported are none, '
            "linear and the llama3 frequencies that GGUF stores as a tensor"
        )
    factor = keys.real("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    if _ROPE_FREQUENCIES not in file.tensors:
        return (factor,) * (head_dim // 2)
    if file.tensors[_ROPE_FREQUENCIES].shape != (head_dim // 2,):
        raise CheckpointError(
            f"{file.path.name}: {_ROPE_FREQUENCIES} does not have {head_dim // 2} values; file damaged"
        )
    values = require_finite(_ROPE_FREQUENCIES, file.read(_ROPE_FREQUENCIES))
    return tuple(float(v) * factor for v in values)


def _check_tensors(file: GgufFile, tensors: dict[str, StoredTensor]) -> None:
    for tensor in tensors.values():
        if tensor.gguf not in file.tensors:
            raise CheckpointError(
                f"{file.path.name}: the tensor {tensor.gguf} is missing; fetch the file again"
            )
        shape = file.tensors[tensor.gguf].shape
        if shape != tensor.shape:
            raise CheckpointError(
                f"{file.path.name}: {tensor.gguf} has shape {list(shape)}, "
                f"the metadata make it {list(tensor.shape)}"
            )
    for name in sorted(set(file.tensors) - {t.gguf for t in tensors.values()} - {_ROPE_FREQUENCIES}):
        raise CheckpointError(
            f"{file.path.name}: the tensor {name[:60]} does not belong to this architecture"
        )
    for kind, code in sorted({(t.kind, t.code) for t in file.tensors.values()}):
        if not can_dequantise(code):
            raise CheckpointError(
                f"{file.path.name}: tensors of type {kind} cannot be dequantised; use another file"
            )
