"""What a schema that lists properties allows besides: nothing, where that is certain to be meant."""

import copy
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, reject
from tests.runtime.constraints.schemas import VALUES, schemas

from rockledge.runtime.constraints.closed_schema import closed

LISTED = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
MORE = {"a": 1, "b": 2}


def tagged(tag: str, **more: Any) -> dict[str, Any]:
    properties = {"a": {"type": "integer"}, "kind": {"const": tag}}
    return {"type": "object", "properties": properties, "required": ["kind"], **more}


UNION = {
    "oneOf": [{"$ref": "#/$defs/x"}, tagged("y")],
    "discriminator": {"propertyName": "kind"},
    "$defs": {"x": tagged("x")},
}


def fits(schema: Any, value: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize(
    "schema, value",
    [
        (LISTED, MORE),
        ({"type": "array", "items": LISTED}, [MORE]),
        ({"type": "array", "prefixItems": [LISTED]}, [MORE]),
        ({"type": "object", "properties": {"x": LISTED}, "additionalProperties": True}, {"x": MORE}),
        ({"type": "object", "additionalProperties": LISTED}, {"x": MORE}),
        ({"anyOf": [LISTED, {"type": "null"}], "title": "Optional"}, MORE),
        ({"$ref": "#/$defs/x", "$defs": {"x": LISTED}, "description": "d"}, MORE),
        (UNION, {"kind": "x", **MORE}),
        (UNION, {"kind": "y", **MORE}),
        ({"type": "object", "properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": LISTED}}, {"x": MORE}),
    ],
)
def test_what_is_not_listed_is_left_out(schema: Any, value: Any) -> None:
    before = copy.deepcopy(schema)
    assert fits(schema, value)
    assert not fits(closed(schema), value)
    assert fits(closed(schema), json.loads(json.dumps(value).replace(', "b": 2', "")))
    assert schema == before


@pytest.mark.parametrize(
    "schema",
    [
        {**LISTED, "additionalProperties": True},
        {**LISTED, "additionalProperties": {"type": "integer"}},
        {**LISTED, "required": ["a", "b"]},
        {**LISTED, "minProperties": 2},
        {**LISTED, "unevaluatedProperties": {"type": "integer"}},
        {"allOf": [LISTED, {"type": "object", "properties": {"b": {"type": "integer"}}}]},
        {"anyOf": [LISTED, {"type": "null"}], "required": ["b"]},
        {"$ref": "#/$defs/x", "required": ["b"], "$defs": {"x": LISTED}},
        {"oneOf": [LISTED, {"type": "null"}]},
        {"oneOf": [tagged("x"), tagged("x")]},
        {"oneOf": [tagged("x"), tagged("y", required=[])]},
        {"oneOf": [tagged("x"), tagged("y")], "required": ["b"]},
        {"oneOf": []},
        {"$ref": "#/$defs/x", "anyOf": [LISTED], "$defs": {"x": LISTED}},
        {"type": "object", "properties": {}},
        {"type": "object"},
        {"const": {"properties": {"a": 1}}},
        True,
        7,
    ],
)
def test_what_may_be_meant_otherwise_stays(schema: Any) -> None:
    assert closed(schema) == schema


@given(schemas(), VALUES)
def test_nothing_new_fits(schema: Any, value: Any) -> None:
    try:
        before, after = fits(schema, value), fits(closed(schema), value)
    except RecursionError:
        reject()  # jsonschema follows references that lead to themselves without end
    assert before or not after


@given(schemas())
def test_closing_again_changes_nothing(schema: Any) -> None:
    assert closed(closed(schema)) == closed(schema)


def test_names_of_properties_are_not_keywords() -> None:
    inner = {"allOf": LISTED, "$ref": {"type": "string"}, "properties": LISTED}
    found = closed({"type": "object", "properties": inner})
    assert found["additionalProperties"] is False
    assert found["properties"]["allOf"]["additionalProperties"] is False
