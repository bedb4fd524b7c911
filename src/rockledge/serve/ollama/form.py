"""`format` of Ollama's bodies: "json", or a JSON schema as Ollama reads it.

Ollama does not heed every keyword of a schema, and its clients rely on that: Home Assistant asks for lists
without duplicates and for formats of its own, such as `entity_id` (`selector_serializer` in
https://github.com/home-assistant/core/blob/dev/homeassistant/helpers/llm.py). Left out are formats that JSON
Schema does not define, which say nothing there either, and `uniqueItems`; all else that is not supported is
refused by name.
"""

from __future__ import annotations

from typing import Any

from rockledge.serve.schema import Field, Reading, check_texts, expected

# https://json-schema.org/draft/2020-12/json-schema-validation#section-7.3; others are annotations.
FORMATS = frozenset(
    {
        "date",
        "date-time",
        "duration",
        "email",
        "hostname",
        "idn-email",
        "idn-hostname",
        "ipv4",
        "ipv6",
        "iri",
        "iri-reference",
        "json-pointer",
        "regex",
        "relative-json-pointer",
        "time",
        "uri",
        "uri-reference",
        "uri-template",
        "uuid",
    }
)

# Keywords of JSON schemas whose values are data, and those whose values are schemas by name.
_DATA = ("const", "default", "enum", "examples")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")


def heeded(schema: Any) -> Any:
    """A schema without the keywords that Ollama does not heed."""
    if isinstance(schema, list):
        return [heeded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        unknown = key == "format" and isinstance(value, str) and value not in FORMATS
        if unknown or key == "uniqueItems":
            continue
        if key in _NAMED and isinstance(value, dict):
            found[key] = {name: heeded(inner) for name, inner in value.items()}
        else:
            found[key] = value if key in _DATA else heeded(value)
    return found


def _format(value: Any, reading: Reading) -> str | dict[str, Any]:
    if isinstance(value, dict):
        schema: dict[str, Any] = check_texts(value)
        return schema if reading.strict else dict(heeded(schema))
    if value not in ("", "json"):
        raise expected('"json" or a JSON schema')
    return str(value)


FORMAT = Field(_format, {"anyOf": [{"type": "string", "enum": ["", "json"]}, {"type": "object"}]})
