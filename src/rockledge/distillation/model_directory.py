"""The directories of teacher and student: Hugging Face checkpoints, which transformers trains.

An artifact or a GGUF file has weights that were rounded, and cannot be trained: the error names the way to
the checkpoint it came from.
"""

import json
from pathlib import Path

from rockledge.artifact.layout import META, REPORT, TENSORS
from rockledge.errors import CheckpointError, UsageError
from rockledge.model.checkpoint import find_checkpoint, model_at
from rockledge.model.special_tokens import special_tokens
from rockledge.model.tokenizer import Tokenizer
from rockledge.tensor_file import read_header

_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
)


def model_directory(name: str | Path, role: str) -> Path:
    """The directory of a checkpoint, given as one or as a Hub id. `role` is "teacher" or "student".

    Raises:
        UsageError: it is an artifact, a GGUF file or an adapter.
        CheckpointError: there is no model.
    """
    found = find_checkpoint(name)
    if found.is_dir() and _is_artifact(found):
        made_from = _made_from(found)
        origin = f" ({made_from})" if made_from else ""
        raise UsageError(
            f"the {role} {name} is an artifact, whose weights are rounded; give the Hugging Face checkpoint "
            f"that it was made from{origin}"
        )
    found = model_at(found)
    if found.is_file():
        raise UsageError(
            f"the {role} {found.name} is a GGUF file, which transformers cannot train; give the model's "
            "Hugging Face directory, or its Hub id such as HuggingFaceTB/SmolLM2-135M"
        )
    return found


def small_files(directory: Path) -> dict[str, bytes]:
    """The configuration, tokenizer and chat files that exist; CheckpointError without a tokenizer.json."""
    found = {name: (directory / name).read_bytes() for name in _FILES if (directory / name).is_file()}
    if "tokenizer.json" not in found:
        raise CheckpointError(
            f"{directory} has no tokenizer.json; load it with transformers' AutoTokenizer and save it there"
        )
    return found


def end_of_text(files: dict[str, bytes]) -> int | None:
    """The token that ends a document, None for a model without one."""
    name = special_tokens(files).get("eos_token")
    return None if name is None else Tokenizer.from_files(files).id(name)


def _is_artifact(path: Path) -> bool:
    return (path / TENSORS).is_file() and META in read_header(path / TENSORS).metadata


def _made_from(path: Path) -> str:
    try:
        stated = json.loads((path / REPORT).read_text(encoding="utf-8")).get("model")
    except (OSError, ValueError, AttributeError):
        return ""
    return stated[:100] if isinstance(stated, str) else ""
