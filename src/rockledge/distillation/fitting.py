"""Whether a model has room for what it is to read: as many positions as a sequence, and an embedding for
every token. A teacher may be of a family that is not quantised here, so only its config.json is asked."""

from collections.abc import Mapping
from typing import Any

from rockledge.distillation.training_text import TrainingText
from rockledge.errors import UsageError
from rockledge.model.special_tokens import json_object
from rockledge.model.tokenizer import Tokenizer


def vocabulary_size(files: Mapping[str, bytes]) -> int:
    """Rows of the embedding; UsageError where config.json does not say."""
    size = _stated(files, "vocab_size")
    if size is None:
        raise UsageError("config.json of teacher or student has no vocab_size; fetch it again")
    return size


def check_context(files: Mapping[str, bytes], length: int) -> None:
    """Raises UsageError where a sequence of `length` tokens is longer than a teacher can read."""
    context = _stated(files, "max_position_embeddings")
    if context is not None and length > context:
        raise UsageError(
            f"a sequence of {length} tokens is longer than the teacher's context of {context}; choose a "
            "smaller --sequence"
        )


def check_tokens(files: Mapping[str, bytes], role: str, text: TrainingText) -> None:
    """Raises UsageError where the text has a token that the `role`'s model has no embedding for: tokenizers
    may know more tokens than their model."""
    most = max(int(part.ids.max()) for part in (text.train, text.held_out) if len(part))
    size = vocabulary_size(files)
    if most >= size:
        token = Tokenizer.from_files(files)
        said = f" {token.token_bytes(most)[:40]!r}" if most < token.size else ""
        raise UsageError(
            f"the data has token {most}{said}, but the {role} has embeddings for {size}; leave that text "
            f"out, or take a {role} that knows it"
        )


def _stated(files: Mapping[str, bytes], key: str) -> int | None:
    described: dict[str, Any] = json_object(files, "config.json")
    inner = described.get("text_config")
    value = described.get(key, inner.get(key) if isinstance(inner, dict) else None)
    return value if type(value) is int else None
