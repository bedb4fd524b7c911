"""Reader of GGUF files: configuration from metadata, tensors dequantised, tokenizer as ordinary files."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.model.agreement import check_agreement
from rockledge.model.bos_eos import bos_and_eos
from rockledge.model.config import ModelConfig, check_config
from rockledge.model.embedding_facts import EMBEDDING, known_facts
from rockledge.model.families.declaration import Family
from rockledge.model.family import FAMILIES, StoredTensor, stored_tensors
from rockledge.model.finite import require_finite
from rockledge.model.gguf_file import GgufFile, can_dequantise, open_gguf
from rockledge.model.gguf_keys import check_metadata
from rockledge.model.gguf_rope import FACTORS, gguf_rope
from rockledge.model.gguf_split import open_gguf_model
from rockledge.model.gguf_tokenizer import tokenizer_facts, tokenizer_files, tokenizer_notes
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_config import config_to_hf
from rockledge.model.limits import check_size
from rockledge.model.missing import missing
from rockledge.model.tied import head_is_tied
from rockledge.model.windows import narrow

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
        rows = slice(tensor.in_gguf.first, tensor.in_gguf.first + tensor.shape[0])
        values = require_finite(name, self.file.read(tensor.gguf)[rows])
        if tensor.rotary_heads and FAMILIES[self.config.family].gguf_interleaved:
            values = deinterleave(values, tensor.rotary_heads)
        return values

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        """Some rows of a matrix, dequantised; of Q and K the heads around them are read."""
        tensor = self.tensors[name]
        heads = tensor.rotary_heads if FAMILIES[self.config.family].gguf_interleaved else 0
        size = tensor.shape[0] // heads if heads else 1
        start, end = first // size * size, -(-(first + count) // size) * size
        values = self.file.rows(tensor.gguf, tensor.in_gguf.first + start, end - start)
        values = require_finite(name, values)
        if heads:
            values = deinterleave(values, (end - start) // size)
        return values[first - start : first - start + count]

    def files(self) -> dict[str, bytes]:
        """config.json and the tokenizer's files, made from the metadata."""
        config = json.dumps(config_to_hf(self.config), indent=2).encode()
        found = {"config.json": config, **tokenizer_files(self.path.name, self.file.metadata, self.config)}
        if self.config.headless:
            found[EMBEDDING] = known_facts(str(self.file.metadata.get("general.name", self.path.name))).file()
        return found


def read_header(path: Path) -> tuple[ModelConfig, tuple[str, ...]]:
    """The model that the header of a GGUF file describes, and notes; the weights may be cut off. Then it is
    not known whether a head is the embedding once more, nor are rotary factors: none is taken to be there.
    CheckpointError says what is wrong with the header."""
    file = open_gguf(path, header_alone=True)
    config, notes = _config(file, _family(file))
    return config, tuple(notes)


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
        raise CheckpointError(
            f"the GGUF architecture {str(found)[:60]!r} is not supported{missing(found, meta, f'{found}.')}; "
            f"supported are {known}"
        )
    return family


def _config(file: GgufFile, family: Family) -> tuple[ModelConfig, list[str]]:
    meta = file.metadata
    values = GgufValues(file.path.name, str(family.gguf), meta, file.tensors)
    heads, head_dim, layers = values.count("attention.head_count"), values.head_dim, values.layers
    if values.count("attention.value_length", head_dim) != head_dim:
        raise CheckpointError(f"{file.path.name}: keys and values of different sizes are not supported")
    if values.count("expert_count", 0, least=0):
        raise CheckpointError(f"{file.path.name} is a mixture of experts, which is not supported")
    embedding, head = file.tensors.get(_EMBEDDING), file.tensors.get(_HEAD)
    if embedding is None:
        raise CheckpointError(f"{file.path.name}: the tensor {_EMBEDDING} is missing; fetch the file again")
    vocab = embedding.shape[0]
    if values.count("vocab_size", vocab) != vocab:
        raise CheckpointError(
            f"{file.path.name}: {family.gguf}.vocab_size is {values.count('vocab_size')}, but {_EMBEDDING} "
            f"has {vocab} rows; fetch the file again"
        )
    if layers > len(file.tensors):
        raise CheckpointError(
            f"{file.path.name} holds {len(file.tensors)} tensors, too few for {layers} layers"
        )
    check_size("head_dim", head_dim)
    turned = values.count("rope.dimension_count", head_dim)
    if turned > head_dim or turned % 2 or (turned != head_dim and family.gguf_interleaved):
        raise CheckpointError(
            f"{file.path.name}: {family.gguf}.rope.dimension_count is {turned}, expected the {head_dim} "
            "channels of a head"
        )
    special = bos_and_eos([], tokenizer_facts(meta), vocab)
    same_type = head is not None and (head.kind, head.shape) == (embedding.kind, embedding.shape)
    comparable = same_type and file.holds(_EMBEDDING) and file.holds(_HEAD)
    tied = head is None or (comparable and head_is_tied(True, file.blocks(_EMBEDDING), file.blocks(_HEAD)))
    config = ModelConfig(
        **{
            "family": family.name,
            "hidden": values.hidden,
            "layers": layers,
            "heads": heads,
            "kv_heads": values.count("attention.head_count_kv", heads),
            "head_dim": head_dim,
            "ffn": values.count("feed_forward_length"),
            "vocab": vocab,
            "norm_eps": values.real("attention.layer_norm_rms_epsilon"),
            "tied": tied,
            "context": values.context,
            "qkv_bias": False,
            "qk_norm": False,
            "bos": special.bos,
            "eos": special.eos,
            "rotary_channels": 0 if turned == head_dim else turned,
            **gguf_rope(values, turned, partial(_factors, file)),
            **narrow(family.from_gguf(values), values.context),
            **_pooling(values),
        }
    )
    notes = check_metadata(values)
    return check_config(config), [*notes, *special.notes]


# llama.cpp's numbers (enum llama_pooling_type in include/llama.h).
_NO_POOLING = 0
_POOLING = {1: "mean", 3: "last"}
_UNSUPPORTED = {2: "cls", 4: "rank, a classifier in place of the head"}


def _pooling(values: GgufValues) -> dict[str, Any]:
    """The fields of a model that makes embeddings."""
    kind = values.count("pooling_type", _NO_POOLING, least=0)
    if kind == _NO_POOLING:
        return {}
    if kind not in _POOLING:
        raise values.wrong(
            "pooling_type", f"{kind} ({_UNSUPPORTED.get(kind, 'unknown')})", "0 (none), 1 (mean) or 3 (last)"
        )
    return {"headless": True, "tied": True, "pooling": _POOLING[kind]}


def _factors(file: GgufFile, name: str, count: int) -> npt.NDArray[np.float32] | None:
    if name not in file.tensors or not file.holds(name):
        return None
    if file.tensors[name].shape != (count,):
        raise CheckpointError(f"{file.path.name}: {name} does not have {count} values; fetch the file again")
    return require_finite(name, file.read(name))


def _check_tensors(file: GgufFile, tensors: dict[str, StoredTensor], *, tied: bool) -> None:
    for tensor in tensors.values():
        if tensor.gguf not in file.tensors:
            raise CheckpointError(
                f"{file.path.name}: the tensor {tensor.gguf} is missing; fetch the file again"
            )
        shape, expected = file.tensors[tensor.gguf].shape, (tensor.in_gguf.rows, *tensor.shape[1:])
        if shape != expected:
            raise CheckpointError(
                f"{file.path.name}: {tensor.gguf} has shape {list(shape)}, "
                f"expected {list(expected)} from the metadata; fetch the file again"
            )
    passed_over = {*FACTORS, *([_HEAD] if tied else [])}
    for name in sorted(set(file.tensors) - {t.gguf for t in tensors.values()} - passed_over):
        raise CheckpointError(
            f"{file.path.name}: the tensor {name[:60]} does not belong to this architecture"
        )
    for kind, code in sorted({(t.kind, t.code) for t in file.tensors.values()}):
        if not can_dequantise(code):
            raise CheckpointError(
                f"{file.path.name}: tensors of type {kind} cannot be dequantised; use another file"
            )
