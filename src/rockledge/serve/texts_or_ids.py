"""A field that is a text, several texts, or the token ids of one or several, as OpenAI's API has prompts and
inputs."""

from __future__ import annotations

from typing import Any

from rockledge.serve.schema import Field, Reading, expected, valid_text

MOST_TEXTS = 2048
"""Texts of one request, as in OpenAI's API."""

TextOrIds = str | tuple[int, ...]


def texts_or_ids(what: str) -> Field:
    """The field; `what` it holds, in the plural, is for the sentence of a mistake."""

    def read(value: Any, reading: Reading) -> tuple[TextOrIds, ...]:
        if isinstance(value, str):
            return (valid_text(value),)
        if isinstance(value, list) and len(value) > 0:
            if _is_ids(value):
                return (tuple(value),)
            if len(value) > MOST_TEXTS:
                raise expected(f"at most {MOST_TEXTS} {what}")
            if all(isinstance(item, str) for item in value):
                return tuple(valid_text(item) for item in value)
            if all(isinstance(item, list) and item and _is_ids(item) for item in value):
                return tuple(tuple(item) for item in value)
        raise expected("a string, a list of strings, a list of token ids, or a list of such lists")

    return Field(read, _DOCUMENT)


def _is_ids(value: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in value)


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_DOCUMENT = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_TEXTS},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1, "maxItems": MOST_TEXTS},
    ]
}
