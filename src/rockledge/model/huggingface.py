"""Reader of Hugging Face directories: config.json, safetensors in one or several files, tokenizer files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.git_lfs import refuse_pointer
from rockledge.model.agreement import check_agreement
from rockledge.model.chat import template_sources, with_named_templates
from rockledge.model.config import ModelConfig
from rockledge.model.embedder import pooling_of
from rockledge.model.embedding_facts import EMBEDDING, SENTENCE_TRANSFORMERS, read_facts
from rockledge.model.family import FAMILIES, StoredTensor, stored_tensors
from rockledge.model.finite import require_finite
from rockledge.model.hf_config import HfConfig, read_hf_config
from rockledge.model.hf_tokens import tokenizer_facts
from rockledge.model.safetensors_file import SafetensorsFile, open_safetensors
from rockledge.model.source import source_name
from rockledge.model.tied import head_is_tied
from rockledge.model.unreadable import INDEX, WHOLE, holds_safetensors, why_no_model
from rockledge.regular_file import read_regular

_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)

# Traces of other quantisers, for when config.json does not mention them: a file, or a tensor-name ending.
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


# Where the model without its head keeps its tensors, in the model with one; files saved without a head leave
# it out, and transformers puts it there again (`base_model_prefix`).
_PREFIX = "model."
_HEADLESS = "The model has no language head: it makes embeddings and cannot generate."
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Source:
    """Where a tensor is: the file, and its name there."""

    file: SafetensorsFile
    name: str


@dataclass(frozen=True)
class HuggingFaceCheckpoint:
    """A directory as `save_pretrained` writes it; `sources` says where each tensor is, by canonical name."""

    path: Path
    config: ModelConfig
    stored: str
    notes: tuple[str, ...]
    tensors: dict[str, StoredTensor]
    sources: dict[str, Source]

    @classmethod
    def open(cls, path: Path) -> "HuggingFaceCheckpoint":
        """Reads and checks every header of the directory; CheckpointError says what does not fit."""
        for trace, scheme in _TRACES.items():
            if (path / trace).is_file():
                raise _already_quantised(path, scheme)
        read = read_hf_config(
            _json(path / "config.json"),
            _json(path / "generation_config.json", may_miss=True),
            tokenizer_facts(_small_files(path)),
        )
        files, notes = _open_files(path)
        held = _sources(files)
        for name in held:
            for trace, scheme in _TRACES.items():
                if name.endswith(trace):
                    raise _already_quantised(path, scheme)
            if ".lora_A." in name or ".lora_B." in name:
                raise CheckpointError(
                    f"{path} holds tensors of an adapter (LoRA) such as {name}; merge it into its base "
                    "model and give the merged model"
                )
        # Checked before the names are listed, so that a damaged layer count cannot make the list enormous.
        if read.config.layers > len(held):
            raise CheckpointError(
                f"{path} holds {len(held)} tensors, too few for {read.config.layers} layers"
            )
        if read.multimodal:
            held = _text_tensors(held)
        bare = not any(name.startswith(_PREFIX) for name in held)
        if bare:
            held = {name if name == _HEAD else _PREFIX + name: source for name, source in held.items()}
        # Names without the prefix are those of the model alone: it was saved without a head.
        pooling = pooling_of(path)
        if pooling is not None or (bare and not read.config.tied and _HEAD not in held):
            _refuse_own_code(path)
            config = replace(read.config, tied=True, headless=True, pooling=pooling or "last")
            said = [_HEADLESS]
        else:
            tied, said = _is_tied(path, read, held)
            config = replace(read.config, tied=tied)
        if config.tied and _EMBEDDING not in held and _HEAD in held:
            held[_EMBEDDING] = held.pop(_HEAD)
        tensors = {tensor.name: tensor for tensor in stored_tensors(config)}
        _check_tensors(path, config, tensors, held)
        types = {
            source.file.float_name(source.name) or "" for source in (held[t.hf] for t in tensors.values())
        }
        return cls(
            path,
            config,
            "safetensors, " + " and ".join(sorted(types)),
            (*read.notes, *notes, *said, *_notes(path, config)),
            tensors,
            {t.name: held[t.hf] for t in tensors.values()},
        )

    def names(self) -> list[str]:
        """Canonical names, in the order of the forward pass."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.tensors[name].shape

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as float32; CheckpointError if it is not finite."""
        source, tensor = self.sources[name], self.tensors[name]
        rows = slice(tensor.in_hf.first, tensor.in_hf.first + tensor.shape[0])
        values = require_finite(name, source.file.read(source.name)[rows])
        return values + np.float32(tensor.hf_offset) if tensor.hf_offset else values

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        """Some rows of a matrix as float32; CheckpointError if they are not finite."""
        source, tensor = self.sources[name], self.tensors[name]
        return require_finite(name, source.file.rows(source.name, tensor.in_hf.first + first, count))

    def files(self) -> dict[str, bytes]:
        """The configuration, tokenizer and chat files of the directory that exist, and what is known of a
        model that makes embeddings."""
        if not (self.path / "tokenizer.json").is_file():
            hint = (
                "; it has only a SentencePiece tokenizer.model: load it with transformers' AutoTokenizer "
                "and save it"
                if (self.path / "tokenizer.model").is_file()
                else "; copy it from the original model"
            )
            raise CheckpointError(f"{self.path} has no tokenizer.json{hint}")
        found = _small_files(self.path)
        if self.config.headless:
            facts = read_facts(
                source_name(self.path),
                _json(self.path / "config.json"),
                _json(self.path / SENTENCE_TRANSFORMERS, may_miss=True).get("prompts") or {},
            )
            found[EMBEDDING] = facts.file()
        return found


def read_config_alone(path: Path) -> HfConfig:
    """What a `config.json` says at `path`, the file or a directory that holds it, without weights: whether
    head and embedding are tied is then what it states. Errors as `HuggingFaceCheckpoint.open`."""
    folder = path if path.is_dir() else path.parent
    file = path / "config.json" if path.is_dir() else path
    read = read_hf_config(_json(file), _json(folder / "generation_config.json", may_miss=True))
    pooling = pooling_of(folder)
    if pooling is None:
        return read
    return replace(read, config=replace(read.config, tied=True, headless=True, pooling=pooling))


def _small_files(path: Path) -> dict[str, bytes]:
    found = {}
    for name in _FILES:
        if (path / name).is_file():
            refuse_pointer(path / name, CheckpointError)
            found[name] = _bytes(path / name)
    named = {file.stem: _bytes(file) for file in sorted((path / "additional_chat_templates").glob("*.jinja"))}
    return with_named_templates(found, named)


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


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


def _refuse_own_code(path: Path) -> None:
    """Models that make embeddings bring code in order to attend in both directions (gte-Qwen2,
    KaLM-embedding v2), which nothing else in their files says."""
    code = _json(path / "config.json").get("auto_map")
    if isinstance(code, dict) and "AutoModel" in code:
        raise CheckpointError(
            f"{path} brings code of its own for the model ({str(code['AutoModel'])[:60]}), which is not run "
            "and may attend in both directions; supported are models of transformers itself"
        )


def _already_quantised(path: Path, scheme: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is already quantised ({scheme}), expected the original bfloat16, float16 or float32 weights"
    )


def _json(path: Path, *, may_miss: bool = False) -> dict[str, Any]:
    if may_miss and not path.is_file():
        return {}
    refuse_pointer(path, CheckpointError)
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON; fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch it again")
    return value


def _open_files(path: Path) -> tuple[list[SafetensorsFile], list[str]]:
    """The files of weights, and notes. A single file takes precedence over an index, as in transformers
    (`_get_resolved_checkpoint_files` in modeling_utils.py)."""
    if not holds_safetensors(path):
        raise CheckpointError(why_no_model(path))
    index = path / INDEX
    notes = []
    if (path / WHOLE).is_file():
        names = [WHOLE]
        if index.is_file():
            notes.append(f"{path} has {WHOLE} and {INDEX}; the whole file is read, as transformers does.")
    else:
        weights = _json(index).get("weight_map")
        if (
            not isinstance(weights, dict)
            or not weights
            or not all(isinstance(name, str) and _plain(name) for name in weights.values())
        ):
            raise CheckpointError(f"{index} has no weight_map of plain file names; fetch it again")
        names = sorted(set(weights.values()))
    for name in names:
        if not (path / name).is_file():
            raise CheckpointError(f"{path} has no {name}, which {INDEX} names; fetch that part too")
    files = [open_safetensors(path / name) for name in names]
    if any("rockledge" in file.header.metadata for file in files):
        raise CheckpointError(f"{path} is a Rockledge artifact; give the checkpoint it was made from")
    return files, notes


def _plain(name: str) -> bool:
    """Whether a file beside the index may be called so: its name has 255 bytes at most on Linux."""
    beside = name not in ("", "..") and name == Path(name).name
    return beside and len(name.encode(errors="surrogatepass")) <= 255


def _sources(files: list[SafetensorsFile]) -> dict[str, Source]:
    held: dict[str, Source] = {}
    for file in files:
        for name in file.header.entries:
            if name in held:
                raise CheckpointError(
                    f"{file.path}: the tensor {name} is in {held[name].file.path.name} too; the parts "
                    "do not belong "
                    "together"
                )
            held[name] = Source(file, name)
    return held


# The language model in checkpoints with more parts, by the prefix of its tensors (old files and new ones),
# and the prefixes of other parts (`_checkpoint_conversion_mapping` in transformers' modeling files).
_TEXT = {
    "language_model.model.": _PREFIX,
    "model.language_model.": _PREFIX,
    "language_model.lm_head.": "lm_head.",
}
_OTHER_PARTS = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)


def _text_tensors(held: Mapping[str, Source]) -> dict[str, Source]:
    """The tensors of the language model, under the names that it has alone."""
    found = {}
    for name, source in held.items():
        if name.startswith(_OTHER_PARTS):
            continue
        prefix = next((prefix for prefix in _TEXT if name.startswith(prefix)), "")
        found[_TEXT.get(prefix, "") + name.removeprefix(prefix)] = source
    return found


def _is_tied(path: Path, read: HfConfig, held: Mapping[str, Source]) -> tuple[bool, list[str]]:
    """Whether the embedding is the head, and notes. CheckpointError names the key where nothing decides
    it."""
    embedding, head = held.get(_EMBEDDING), held.get(_HEAD)
    says = read.config.tied
    if head is None:
        if not says:
            key = (
                "tie_word_embeddings is missing in config.json, which means false for "
                f"{FAMILIES[read.config.family].hf_architecture}: set it to true if the head is the "
                "embedding, or "
                if read.stated_tied is None
                else "tie_word_embeddings in config.json is false: "
            )
            raise CheckpointError(f"{path}: the tensor {_HEAD} is missing, and {key}fetch the head's weights")
        return True, []
    if embedding is None:
        return says, []
    same_shape = embedding.file.shape(embedding.name) == head.file.shape(head.name)
    floats = all(source.file.float_name(source.name) is not None for source in (embedding, head))
    tied = (
        same_shape
        and floats
        and head_is_tied(says, embedding.file.blocks(embedding.name), head.file.blocks(head.name))
    )
    if says and not tied:
        note = (
            "config.json has tie_word_embeddings: true, but a head that differs from the embedding is "
            "stored; the "
            "stored head is used, as in transformers 5."
        )
        return False, [note]
    return tied, []


def _check_tensors(
    path: Path, config: ModelConfig, tensors: dict[str, StoredTensor], held: Mapping[str, Source]
) -> None:
    expected = {tensor.hf for tensor in tensors.values()}
    missing = [tensor.hf for tensor in tensors.values() if tensor.hf not in held]
    if missing:
        strange = sorted(set(held) - expected)
        hint = f"; it holds {strange[0]} instead, so it may be another kind of model" if strange else ""
        raise CheckpointError(
            f"{path}: the tensor {missing[0]} is missing"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + (hint or "; fetch the checkpoint again")
        )
    for tensor in tensors.values():
        source = held[tensor.hf]
        shape, expects = source.file.shape(source.name), (tensor.in_hf.rows, *tensor.shape[1:])
        if shape != expects:
            raise CheckpointError(
                f"{path}: {source.name} has shape {list(shape)}, expected {list(expects)} from config.json"
            )
        if source.file.float_name(source.name) is None:
            raise CheckpointError(
                f"{path}: {source.name} holds {source.file.dtype(source.name)}, expected BF16, F16 or "
                "F32: use the "
                "original, unquantised checkpoint"
            )
    # Old files carry the rotary frequencies, and tied ones may repeat the embedding as lm_head; anything else
    # is a part of the model that would silently be left out.
    for name in sorted(set(held) - expected):
        if not name.endswith("rotary_emb.inv_freq") and not (config.tied and name == _HEAD):
            raise CheckpointError(
                f"{path}: the tensor {held[name].name} does not belong to the family {config.family!r}"
            )
