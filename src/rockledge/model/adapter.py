"""A LoRA adapter of peft, merged into the checkpoint that it was trained on while that is read.

A linear W [out, in] becomes W + scale * B @ A with A [r, in] and B [out, r]; an embedding [V, H] gets the
transpose of that. `scale` is alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (arXiv 2312.03732).
Modules that were trained whole (`modules_to_save`) take the place of the base model's. It is what
`merge_and_unload` of peft 0.21 computes, without peft, and never a whole model in memory.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError, UsageError
from rockledge.model.checkpoint import StoredCheckpoint
from rockledge.model.config import ModelConfig
from rockledge.model.family import StoredTensor, stored_tensors
from rockledge.model.finite import require_finite
from rockledge.model.name_pattern import NamePattern
from rockledge.model.safetensors_file import SafetensorsFile, open_safetensors
from rockledge.regular_file import read_regular

Float32 = npt.NDArray[np.float32]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BY_PEFT = "merge it by peft's merge_and_unload, and give the merged model"
_PREFIX = "base_model.model."
_EMBED, _HEAD = "model.embed_tokens.weight", "lm_head.weight"

# Keys that say nothing about what is merged: where the adapter is from, or how it was made and trained.
_NEUTRAL = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_bias",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
_LARGEST = 1e9  # rank and alpha, far beyond any that trains
_SECONDS = 60.0  # of processor time for all patterns; one for each linear of an 8B takes one or two
# Ways to begin that leave the base model's weights as they are.
_PLAIN_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class _Own:
    """What some modules have of their own: values by pattern, by key of the configuration. `ends`: at which
    processor time matching gives up."""

    patterns: Mapping[str, Mapping[NamePattern, Any]]
    ends: float


@dataclass(frozen=True)
class Change:
    """What an adapter does to one tensor of Hugging Face's: `whole` takes its place, then `scale` times the
    product of `b` and `a` is added, turned over where it is an embedding's."""

    whole: str | None = None
    a: str | None = None
    b: str | None = None
    scale: float = 0.0
    turned: bool = False


@dataclass(frozen=True)
class Adapter:
    """An adapter directory whose every tensor is understood; `changes` by name in Hugging Face's files."""

    path: Path
    file: SafetensorsFile
    sha256: str
    changes: Mapping[str, Change]
    keeps_ties: bool


@dataclass(frozen=True)
class AdaptedCheckpoint:
    """A checkpoint with an adapter in its weights, as `rockledge.model.checkpoint.StoredCheckpoint` has it.

    Where the base model's head is its embedding and only one of them was trained whole, they are two
    matrices from here on.
    """

    base: StoredCheckpoint
    adapter: Adapter
    config: ModelConfig
    tensors: Mapping[str, StoredTensor] = field(repr=False)

    @property
    def path(self) -> Path:
        """The base model's place."""
        return self.base.path

    @property
    def stored(self) -> str:
        """The base model's form, and which adapter is in it."""
        return f"{self.base.stored}, with adapter {self.adapter.path.name} ({self.adapter.sha256[:12]})"

    @property
    def notes(self) -> tuple[str, ...]:
        """The base model's, and one on the adapter."""
        count = len(self.adapter.changes)
        return (*self.base.notes, f"The adapter {self.adapter.path.name} changes {count} tensors.")

    def names(self) -> list[str]:
        """Canonical names, in the order of the forward pass."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.tensors[name].shape

    def files(self) -> dict[str, bytes]:
        """The base model's small files."""
        return self.base.files()

    def tensor(self, name: str) -> Float32:
        """One tensor as float32, merged; CheckpointError if it is not finite."""
        values = self._merged(name, 0, self.tensors[name].shape[0])
        return self.base.tensor(self._source(name)) if values is None else values

    def rows(self, name: str, first: int, count: int) -> Float32:
        """Some rows of a matrix as float32, merged."""
        values = self._merged(name, first, count)
        return self.base.rows(self._source(name), first, count) if values is None else values

    def _source(self, name: str) -> str:
        """Which of the base model's tensors it is: a head that had none of its own is the embedding."""
        return "embed" if name == "head" and self.base.config.tied else name

    def _merged(self, name: str, first: int, count: int) -> Float32 | None:
        """Rows of a tensor that the adapter changes; None for one that it does not."""
        tensor = self.tensors[name]
        change = self.adapter.changes.get(tensor.hf)
        if change is None:
            return None
        file, begin = self.adapter.file, tensor.in_hf.first + first
        if change.whole is not None:
            values = file.read(change.whole)[begin : begin + count]
            values = values + np.float32(tensor.hf_offset) if tensor.hf_offset else values
        elif len(tensor.shape) == 1:
            values = self.base.tensor(self._source(name))[first : first + count]
        else:
            values = self.base.rows(self._source(name), first, count)
        if change.b is not None:
            b = file.read(change.b)
            if change.a is None:  # a bias of B
                added = b[begin : begin + count]
            elif change.turned:
                added = file.read(change.a)[:, begin : begin + count].T @ b.T
            else:
                added = b[begin : begin + count] @ file.read(change.a)
            values = values + np.float32(change.scale) * added
        return np.ascontiguousarray(require_finite(name, values))


def with_adapter(base: StoredCheckpoint, directory: str | Path) -> AdaptedCheckpoint:
    """The checkpoint with the adapter in `directory` merged into it.

    Raises:
        UsageError: the adapter is of a kind that is not merged (DoRA, other methods), or not of this model.
        CheckpointError: it is damaged.
    """
    adapter = _with_one_matrix(base.config, read_adapter(Path(directory)))
    config = _config(base.config, adapter)
    tensors = {tensor.name: tensor for tensor in stored_tensors(config)}
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in tensors.values():
        shapes[tensor.hf] = (tensor.in_hf.rows, *tensor.shape[1:])
    for name, change in adapter.changes.items():
        if name not in shapes:
            raise UsageError(
                f"the adapter {adapter.path} changes {name}, which {base.path} does not have; give the base "
                "model that it was trained on"
            )
        _check_shapes(adapter, name, change, shapes[name])
    return AdaptedCheckpoint(base, adapter, config, tensors)


def read_adapter(path: Path) -> Adapter:
    """Reads and checks an adapter directory; errors as `with_adapter`."""
    stated = _stated(path)
    _check_kind(path, stated)
    if not (path / _WEIGHTS).is_file():
        pickled = " (adapter_model.bin is pickled)" if (path / "adapter_model.bin").is_file() else ""
        raise CheckpointError(
            f"{path} has no {_WEIGHTS}{pickled}; load the adapter with peft, call save_pretrained, and give "
            "that directory"
        )
    file = open_safetensors(path / _WEIGHTS)
    digest = hashlib.sha256(read_regular(path / _WEIGHTS)).hexdigest()
    changes: dict[str, Change] = {}
    ends = time.process_time() + _SECONDS
    own = _Own({key: _patterns(path, stated, key, ends) for key in ("rank_pattern", "alpha_pattern")}, ends)
    for stored in file.header.entries:
        name, part = _place(path, stored)
        if part == "whole":
            change = replace(changes.get(name, Change()), whole=stored)
        else:
            module = name.rpartition(".")[0]
            before = changes.get(name, Change())
            rank, scale = _rank_and_scale(path, stated, module, own)
            if part.endswith("a") and file.shape(stored)[:1] != (rank,):
                raise CheckpointError(
                    f"{path / _CONFIG} gives {module} the rank {str(rank)[:20]}, but {stored[:120]} has the "
                    f"shape {file.shape(stored)}; fetch it again"
                )
            change = replace(before, scale=scale, turned=part.startswith("turned"))
            change = replace(change, a=stored) if part.endswith("a") else replace(change, b=stored)
        changes[name] = change
    if not changes:
        raise CheckpointError(f"{path / _WEIGHTS} holds no tensors; fetch it again")
    for name, change in changes.items():
        if name.endswith(".weight") and (change.a is None) != (change.b is None):
            raise CheckpointError(f"{path}: {name} has one half of an adapter; fetch it again")
    return Adapter(path, file, digest, changes, stated.get("ensure_weight_tying") is True)


def _stated(path: Path) -> dict[str, Any]:
    if not (path / _CONFIG).is_file():
        raise UsageError(f"{path} is not an adapter, expected a directory with {_CONFIG} as peft writes it")
    try:
        stated = json.loads(read_regular(path / _CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path / _CONFIG} is not readable JSON; fetch it again") from error
    if not isinstance(stated, dict):
        raise CheckpointError(f"{path / _CONFIG} is not a JSON object; fetch it again")
    return stated


def _check_kind(path: Path, stated: Mapping[str, Any]) -> None:
    kind = stated.get("peft_type")
    if kind != "LORA":
        raise UsageError(f"{path} is an adapter of type {str(kind)[:40]}, expected LORA; {_BY_PEFT}")
    for key in ("use_rslora", "ensure_weight_tying"):
        if not isinstance(stated.get(key), (bool, type(None))):
            raise CheckpointError(f"{path / _CONFIG}: {key} is neither true nor false; fetch it again")
    if stated.get("use_dora"):
        raise UsageError(f"{path} is a DoRA adapter (use_dora), expected plain LoRA; {_BY_PEFT}")
    if stated.get("init_lora_weights") not in _PLAIN_BEGINNINGS:
        begun = str(stated["init_lora_weights"])[:40]
        raise UsageError(f"{path} began by changing its base model (init_lora_weights: {begun}); {_BY_PEFT}")
    for key, value in stated.items():
        if key not in _NEUTRAL and value:
            raise UsageError(f"{path} is an adapter with {key[:40]}, which is not merged here; {_BY_PEFT}")


def _place(path: Path, stored: str) -> tuple[str, str]:
    """(name in the base model's files, part) of an adapter's tensor: "a", "b", "turned a", "turned b" or
    "whole"."""
    name = stored.removeprefix(_PREFIX)
    for ending, part, becomes in (
        (".lora_A.weight", "a", ".weight"),
        (".lora_B.weight", "b", ".weight"),
        (".lora_B.bias", "b", ".bias"),
        (".lora_embedding_A", "turned a", ".weight"),
        (".lora_embedding_B", "turned b", ".weight"),
    ):
        if name.endswith(ending):
            return name.removesuffix(ending) + becomes, part
    if "lora_" in name or "token_adapter" in name or not stored.startswith(_PREFIX):
        raise UsageError(f"{path} holds {stored[:120]}, which is not merged here; {_BY_PEFT}")
    for wrapper in (".base_layer.", ".modules_to_save.", ".original_module."):
        name = name.replace(wrapper, ".")
    return name, "whole"


def _rank_and_scale(path: Path, stated: Mapping[str, Any], module: str, own: _Own) -> tuple[int, float]:
    """The rank of a module's two matrices, and by what their product is multiplied."""
    rank = _of_module(path, own, "rank_pattern", module, stated.get("r"))
    alpha = _of_module(path, own, "alpha_pattern", module, stated.get("lora_alpha"))
    whole = type(rank) is int and 1 <= rank <= _LARGEST
    if not whole or type(alpha) not in (int, float) or not abs(alpha) <= _LARGEST:
        raise CheckpointError(
            f"{path / _CONFIG} gives {module} the rank {str(rank)[:20]} and the alpha {str(alpha)[:20]}, "
            "expected a positive whole number and a number; fetch it again"
        )
    return rank, alpha / math.sqrt(rank) if stated.get("use_rslora") else alpha / rank


def _patterns(path: Path, stated: Mapping[str, Any], key: str, ends: float) -> dict[NamePattern, Any]:
    """Values by pattern, as peft matches them: with the end of a name, after a dot or from its beginning."""
    patterns = stated.get(key) or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{path / _CONFIG}: {key} is not an object; fetch it again")
    found = {}
    for pattern, value in patterns.items():
        _check_time(path, ends)
        try:
            re.compile(pattern)  # alone: it may close no group of ours
            found[NamePattern(rf"(.*\.)?({pattern})$")] = value
        except (re.error, OverflowError, RecursionError) as error:
            raise CheckpointError(
                f"{path / _CONFIG}: {key} has {pattern[:60]!r}, which is not a regular expression; correct it"
            ) from error
        except UsageError as error:
            raise UsageError(f"{path / _CONFIG}: {key}: {error}; {_BY_PEFT}") from error
    return found


def _of_module(path: Path, own: _Own, key: str, module: str, otherwise: Any) -> Any:
    """A module's own value, by the first pattern that it matches."""
    for pattern, value in own.patterns[key].items():
        _check_time(path, own.ends)
        if pattern.matches(module):
            return value
    return otherwise


def _check_time(path: Path, ends: float) -> None:
    if time.process_time() > ends:
        raise UsageError(
            f"{path / _CONFIG} has patterns that take more than {_SECONDS:g} seconds to match; {_BY_PEFT}"
        )


def _with_one_matrix(config: ModelConfig, adapter: Adapter) -> Adapter:
    """An adapter that was trained with head and embedding as one matrix (`ensure_weight_tying`) changes that
    matrix; peft saves it under both names."""
    embed, head = adapter.changes.get(_EMBED), adapter.changes.get(_HEAD)
    if not (config.tied and adapter.keeps_ties) or head is None or head.whole is None:
        return adapter
    if embed is not None and embed.whole is not None:
        one, other = adapter.file.read(embed.whole), adapter.file.read(head.whole)
        if not np.array_equal(one, other):
            raise CheckpointError(
                f"{adapter.path} has ensure_weight_tying, but head and embedding that differ; fetch it again"
            )
    rest = {name: change for name, change in adapter.changes.items() if name != _HEAD}
    return replace(adapter, changes={**rest, _EMBED: embed or head})


def _config(config: ModelConfig, adapter: Adapter) -> ModelConfig:
    """The model's numbers after merging: no longer tied where one of head and embedding changes alone."""
    if not config.tied:
        return config
    embed, head = adapter.changes.get(_EMBED), adapter.changes.get(_HEAD)
    if config.headless and head is not None:
        raise UsageError(
            f"the adapter {adapter.path} changes a head, which the model does not have; {_BY_PEFT}"
        )
    if any(change is not None and change.a is not None for change in (embed, head)):
        raise UsageError(
            f"the adapter {adapter.path} adapts the embedding or the head, which are one matrix in this "
            f"model, so it is not known which of them it means; {_BY_PEFT}"
        )
    changed = embed is not None or head is not None
    if not changed or config.headless or adapter.keeps_ties:
        return config
    return replace(config, tied=False)


def _check_shapes(adapter: Adapter, name: str, change: Change, shape: tuple[int, ...]) -> None:
    """Raises UsageError unless the adapter's tensors fit a tensor of that shape."""
    file = adapter.file
    fits = change.whole is None or file.shape(change.whole) == shape
    found = "" if change.whole is None else str(file.shape(change.whole))
    if change.b is not None:
        b = file.shape(change.b)
        if change.a is None:
            product: tuple[int, ...] = b
            ranks_agree = True
        else:
            a = file.shape(change.a)
            if len(a) != 2 or len(b) != 2:
                raise CheckpointError(
                    f"{adapter.path}: {name} is not adapted by two matrices; fetch it again"
                )
            product = (a[1], b[0]) if change.turned else (b[0], a[1])
            ranks_agree = a[0] == b[1]
        fits, found = fits and ranks_agree and product == shape, str(product)
    if not fits:
        raise UsageError(
            f"the adapter {adapter.path} changes {name} as one of shape {found}, but it is {shape}; give the "
            "base model that it was trained on"
        )
