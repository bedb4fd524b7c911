"""What is left out of a schema, and what is not."""

from typing import Any

import pytest

from rockledge.serve.errors import ApiError
from rockledge.serve.ollama.bodies import GeneratingBody
from rockledge.serve.ollama.form import heeded
from rockledge.serve.schema import Reading, read_body


def test_formats_that_json_schema_does_not_define_are_annotations() -> None:
    kept = {"type": "string", "format": "date-time"}
    schema = {
        "type": "object",
        "properties": {
            "format": {"type": "string", "format": "entity_id"},
            "uniqueItems": True,
            "when": kept,
            "rooms": {"type": "array", "items": {"enum": [{"format": "x"}]}, "uniqueItems": True},
        },
        "required": ["format"],
        "default": {"format": "y"},
    }
    assert heeded(schema) == {
        "type": "object",
        "properties": {
            "format": {"type": "string"},
            "uniqueItems": True,
            "when": kept,
            "rooms": {"type": "array", "items": {"enum": [{"format": "x"}]}},
        },
        "required": ["format"],
        "default": {"format": "y"},
    }
    assert schema["properties"]["rooms"]["uniqueItems"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "contains": {"type": "string"}}, "contains"),
        ({"type": "string", "format": "idn-email"}, "idn-email"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "endless"),
    ],
)
def test_everything_else_that_is_not_supported_is_refused_by_name(schema: Any, word: str) -> None:
    with pytest.raises(ApiError, match=word) as caught:
        read_body(GeneratingBody, {"format": schema}, Reading()).constraint()
    assert caught.value.param == "format"


def test_strictly_nothing_is_left_out() -> None:
    body = {"format": {"type": "string", "format": "entity_id"}}
    assert read_body(GeneratingBody, body, Reading()).constraint() is not None
    with pytest.raises(ApiError, match="entity_id"):
        read_body(GeneratingBody, body, Reading(strict=True)).constraint()
