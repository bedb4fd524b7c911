"""What fields of a request say about the form of its answer, as a constraint.

`response_format` is OpenAI's; `structured_outputs` and the `guided_` fields are vLLM's, `grammar` (GBNF) and
`json_schema` llama.cpp's. One of them at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import Constraint, ConstraintKind, check_constraint
from rockledge.serve.errors import ApiError

_FORMS: dict[str, ConstraintKind] = {
    "json_schema": "json_schema",
    "json": "json_schema",
    "regex": "regex",
    "choice": "choice",
    "grammar": "gbnf",
    "lark": "lark",
    "json_object": "json",
}

_FIELDS: dict[str, ConstraintKind] = {
    "json_schema": "json_schema",
    "grammar": "gbnf",
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "gbnf",
}

CONSTRAINT_FIELDS = ("response_format", "structured_outputs", *_FIELDS)
"""Fields of a request that are read here."""


def read_constraint(fields: Mapping[str, Any]) -> Constraint | None:
    """The constraint that `fields` (names of `CONSTRAINT_FIELDS` to JSON values) ask for, checked; None for
    any text. It may take a second: not for an event loop.

    Raises:
        ApiError: 400 that names the field.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    found = [
        (name, constraint)
        for name, value in given.items()
        if (constraint := _constraint(name, value)) is not None
    ]
    if len(found) > 1:
        names = " and ".join(f"'{name}'" for name, _ in found)
        raise ApiError(f"{names} both say what the answer looks like; give one of them", param=found[1][0])
    return checked(*found[0]) if found else None


def checked(name: str, constraint: Constraint) -> Constraint:
    """A constraint that can be kept to; `name` is the field that asks for it. It may take a second.

    Raises:
        ApiError: 400 that names the field.
    """
    try:
        check_constraint(constraint)
    except UsageError as error:
        raise ApiError(str(error), param=name) from None
    return constraint


def schema_constraint(name: str, value: Any) -> Constraint:
    """The constraint of the JSON schema in the field `name`, checked.

    Raises:
        ApiError: 400 that names the field.
    """
    return checked(name, _written(name, "json_schema", value))


def _constraint(name: str, value: Any) -> Constraint | None:
    if name == "response_format":
        return _response_format(value)
    if name == "structured_outputs":
        if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in _FORMS:
            raise _wrong(name, "an object with one of " + ", ".join(_FORMS))
        form, inner = next(iter(value.items()))
        return (
            Constraint("json") if form == "json_object" else _written(f"{name}.{form}", _FORMS[form], inner)
        )
    return _written(name, _FIELDS[name], value)


def _response_format(value: Any) -> Constraint | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        # With a schema: llama.cpp and others.
        schema = value.get("schema")
        return (
            Constraint("json")
            if schema is None
            else _written("response_format.schema", "json_schema", schema)
        )
    if kind == "json_schema":
        inner = value.get("json_schema")
        if not isinstance(inner, dict) or "schema" not in inner:
            raise _wrong("response_format.json_schema", "an object with a 'schema'")
        return _written("response_format.json_schema.schema", "json_schema", inner["schema"])
    if kind in ("regex", "grammar", "lark", "choice"):
        name = f"response_format.{kind}"
        return _written(name, _FORMS[kind], value.get(kind))
    raise _wrong("response_format.type", "text, json_object, json_schema, regex, grammar, lark or choice")


def _written(name: str, kind: ConstraintKind, value: Any) -> Constraint:
    """The constraint with its text: schemas and choices come as JSON values."""
    if kind == "choice":
        return Constraint(kind, json.dumps(value))
    if kind == "json_schema":
        if isinstance(value, str):
            return Constraint(kind, value)
        if not isinstance(value, (dict, bool)):
            raise _wrong(name, "a JSON schema")
        return Constraint(kind, json.dumps(value))
    if not isinstance(value, str):
        raise _wrong(name, "a string")
    # vLLM takes both dialects in one field; a rule of Lark has a colon where GBNF has "::=".
    return Constraint("lark" if kind == "gbnf" and "::=" not in value else kind, value)


def _wrong(name: str, expected: str) -> ApiError:
    return ApiError(f"'{name}' must be {expected}", param=name)
