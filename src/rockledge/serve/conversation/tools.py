"""Tools of a request: which functions the model may, or must, call."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rockledge.runtime.constraints.closed_schema import closed
from rockledge.runtime.constraints.schema_meaning import DATA, NAMED
from rockledge.serve.conversation.call_forms import Tools
from rockledge.serve.conversation.messages import Tool
from rockledge.serve.errors import ApiError
from rockledge.serve.schema import Field, Reading, expected, valid_text, wrong

CHOICES = ("none", "auto", "required")
NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)
ANYTHING = {"type": "object"}


def _choice(value: Any, reading: Reading) -> str | dict[str, Any]:
    """One of the words, or the object that names a function."""
    if isinstance(value, str) and value in CHOICES:
        return value
    named = value.get("function", value) if isinstance(value, dict) else None
    if isinstance(named, dict) and isinstance(named.get("name"), str):
        return {"name": valid_text(named["name"])}
    raise expected('none, auto, required or {"type": "function", "function": {"name": ...}}')


TOOL_CHOICE = Field(_choice, {"anyOf": [{"type": "string", "enum": list(CHOICES)}, {"type": "object"}]})


def functions(
    tools: Sequence[Tool],
    choice: str | dict[str, Any] | None,
    inner: str = ".function",
    parameters: str = "parameters",
) -> Tools:
    """The functions that may be called, by name, with the JSON schemas of their arguments. `inner` is where
    they stand in the request's tools, and `parameters` what it calls those schemas.

    Raises:
        ApiError: 400 for names and schemas that cannot be used, and a choice that names no function.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, tool in enumerate(tools):
        place = f"tools[{number}]{inner}"
        name = tool.function.name
        if not NAME.fullmatch(name):
            raise wrong(f"{place}.name", "made of up to 128 letters, digits and any of _ - . : /")
        if name in found:
            raise wrong(f"{place}.name", f"used once ('{name}' is there twice)")
        found[name] = ANYTHING if tool.function.parameters is None else tool.function.parameters
        _check_schema(f"{place}.{parameters}", found[name])
    if choice == "required" and not tools:
        raise wrong("tool_choice", "'none' or 'auto' without 'tools'")
    if isinstance(choice, dict) and choice["name"] not in found:
        raise ApiError(
            f"'tool_choice' names the function '{choice['name'][:128]}', which 'tools' does not have",
            param="tool_choice",
        )
    return {} if choice == "none" else found


def _check_schema(place: str, schema: dict[str, Any]) -> None:
    """Refuses what cannot be the schema of an object of arguments."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("type", "object") != "object":
        raise wrong(place, "a JSON schema of an object ('type' is another)")
    if not isinstance(properties, dict) or not all(isinstance(p, (dict, bool)) for p in properties.values()):
        raise wrong(place, "a JSON schema ('properties' is not an object of schemas)")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise wrong(place, "a JSON schema ('required' is not a list of names)")


def calls_schema(
    tools: Tools, choice: str | dict[str, Any] | None, one_call: bool = False
) -> dict[str, Any] | None:
    """The JSON schema that the calls of an answer must satisfy, as a list of objects with `name` and
    `arguments`; None where the model may as well answer with text."""
    if choice == "required":
        named = tools
    elif isinstance(choice, dict):
        named = {choice["name"]: tools[choice["name"]]}
    else:
        return None
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "arguments": _moved(_arguments(schema), f"#/items/anyOf/{number}/properties/arguments"),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, (name, schema) in enumerate(named.items())
    ]
    most = {"maxItems": 1} if one_call or isinstance(choice, dict) else {}
    return {"type": "array", "items": {"anyOf": calls}, "minItems": 1, **most}


_SILENT = {"$schema", "description", "title", "type"}  # they say nothing of parameters
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def _arguments(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments of a call that the model is made to write: those that are listed, and none
    for a function without parameters, as OpenAI has it."""
    said = {keyword for keyword, value in schema.items() if value or keyword == "additionalProperties"}
    found: dict[str, Any] = _NOTHING if said <= _SILENT else closed(dict(schema))
    return found


def _moved(schema: Any, place: str) -> Any:
    """A schema that now stands at `place` of a document: its references to itself follow."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, dict):
            found[key] = {name: _moved(inner, place) for name, inner in value.items()}
        elif key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            found[key] = place + value[1:]
        else:
            found[key] = value if key in DATA else _moved(value, place)
    return found
