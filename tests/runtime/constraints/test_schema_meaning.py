"""What llguidance reads differently is rewritten or refused: no answer breaks a schema because of it."""

import json
import re
from typing import Any

import jsonschema
import pytest

from rockledge.errors import UsageError
from rockledge.runtime.constraints.constraint import (
    Constraint,
    _bytes_as_tokens,
    check_constraint,
    compile_constraint,
)
from rockledge.runtime.constraints.schema_meaning import as_llguidance_reads


def taken(schema: Any, text: str) -> bool:
    matcher = compile_constraint(Constraint("json_schema", json.dumps(schema)), _bytes_as_tokens)
    data = list(text.encode())
    return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "prefixItems": [{"type": "null"}], "additionalItems": False},
        {"type": "array", "prefixItems": [False], "additionalItems": {"type": "integer"}},
        {"type": "array", "items": {"type": "boolean"}, "additionalItems": {"type": "null"}},
        {"type": "object", "properties": {"additionalItems": {"type": "null"}}},
    ],
)
def test_additional_items_say_nothing_without_a_list_of_items(schema: Any) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for value in ([], [0], [None], [None, 1], [True], {"additionalItems": None}, {"additionalItems": 1}):
        assert taken(schema, json.dumps(value)) == validator.is_valid(value)


KEPT = [2**53, -(2**53), 1e22, 1.5, 1e-7, -0.0, 100000000000000000000]
LOST = [2**53 + 1, 2**63, -(2**63) - 1, 1.5e300, 10**400, 3 * 2**60]


@pytest.mark.parametrize("number", [*KEPT, *LOST], ids=lambda number: f"{str(number)[:8]}")
def test_a_number_is_written_with_all_of_its_digits_or_refused(number: Any) -> None:
    for schema in ({"const": number}, {"enum": [{"a": [number]}]}):
        if number in LOST:
            with pytest.raises(UsageError, match=re.escape(f"has the number {str(number)[:12]}")):
                check_constraint(Constraint("json_schema", json.dumps(schema)))
            continue
        matcher = compile_constraint(Constraint("json_schema", json.dumps(schema)), _bytes_as_tokens)
        text = bytes(matcher.compute_ff_tokens()).decode()
        assert jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
    assert isinstance(as_llguidance_reads({"default": number}), dict)


@pytest.mark.parametrize(
    "schema, usable",
    [
        ({"type": "integer", "minimum": 1, "maximum": 2**63 - 1}, True),  # of code for 64 bits
        ({"type": "integer", "minimum": 0, "maximum": 2**64 - 1}, True),
        ({"type": "integer", "minimum": 2**53 + 1}, False),
        ({"type": "number", "maximum": 2**53 + 3}, False),
        ({"type": "number", "maximum": 10**400}, False),
        ({"type": "integer", "multipleOf": -3}, False),
        ({"type": "array", "items": [{}], "prefixItems": [{}]}, False),
        ({"type": "object", "patternProperties": {r"\d": {}, "[0-9]": {"type": "null"}}}, False),
    ],
)
def test_bounds_that_would_be_loose_are_refused(schema: Any, usable: bool) -> None:
    if usable:
        check_constraint(Constraint("json_schema", json.dumps(schema)))
        return
    with pytest.raises(UsageError, match="the JSON schema has"):
        check_constraint(Constraint("json_schema", json.dumps(schema)))


def test_data_and_names_are_left_alone() -> None:
    schema = {
        "properties": {"pattern": {"const": {"pattern": r"\A", "additionalItems": 1}}, "multipleOf": True},
        "default": {"pattern": r"\z"},
    }
    assert as_llguidance_reads(schema) == schema
