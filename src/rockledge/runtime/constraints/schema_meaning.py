"""A JSON schema in the words that llguidance understands as JSON Schema does.

llguidance 1.9.1 reads some of it differently: `additionalItems` beside `prefixItems`, numbers that a double
cannot hold, and patterns, which it reads as Rust's regex crate does. What can be said in its words is
rewritten, the rest is refused by name.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from rockledge.errors import UsageError
from rockledge.runtime.constraints.patterns import portable_pattern

DATA = ("const", "default", "enum", "examples")
"""Keywords whose values are data."""

NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
"""Keywords whose values are schemas by name."""

_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
_MOST_INTEGER = 2**63 - 1
"""llguidance keeps whole numbers within."""
_MOST_DOUBLE = 10**308


def as_llguidance_reads(schema: Any) -> Any:
    """The same schema, rewritten. Raises UsageError, one sentence."""
    if isinstance(schema, list):
        return [as_llguidance_reads(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    _check_numbers(schema)
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, dict):
            found[key] = _by_name(key, value)
        elif key == "pattern" and isinstance(value, str):
            found[key] = portable_pattern(value)
        elif key == "additionalItems" and not isinstance(schema.get("items"), list):
            continue  # it says nothing then, in any draft
        else:
            found[key] = value if key in DATA else as_llguidance_reads(value)
    if "prefixItems" in found and isinstance(found.get("items"), list):
        raise UsageError("the JSON schema has 'prefixItems' beside a list of 'items'; leave one of them out")
    return found


def _by_name(key: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: as_llguidance_reads(schema) for name, schema in schemas.items()}
    if key != "patternProperties":
        return found
    patterns = {portable_pattern(name): schema for name, schema in found.items()}
    if len(patterns) < len(found):
        raise UsageError("the JSON schema has two 'patternProperties' that mean the same; join them")
    return patterns


def _check_numbers(schema: Mapping[str, Any]) -> None:
    """Raises UsageError for a number whose digits llguidance loses: it reads all of them as doubles."""
    values = [schema["const"]] if "const" in schema else []
    values += schema["enum"] if isinstance(schema.get("enum"), list) else []
    lost = next((number for number in _numbers(values) if not _written_whole(number)), None)
    if lost is None:
        lost = next((number for number in _loose_bounds(schema)), None)
    if lost is not None:
        raise UsageError(
            f"the JSON schema has the number {str(lost)[:40]}, whose digits cannot all be kept to; use one "
            "of at most 9007199254740992"
        )
    factor = schema.get("multipleOf")
    if isinstance(factor, (int, float)) and factor <= 0:
        raise UsageError(f"the JSON schema has 'multipleOf' {factor:g}, expected a number greater than 0")


def _numbers(values: list[Any]) -> Iterator[int | float]:
    """All numbers in JSON values."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield value


def _written_whole(number: int | float) -> bool:
    """Whether the shortest digits of the nearest double, written without an exponent, are the number."""
    if -(2**53) <= number <= 2**53:
        return True
    try:
        return int(Decimal(repr(float(number)))) == number
    except OverflowError:
        return False


def _loose_bounds(schema: Mapping[str, Any]) -> Iterator[int]:
    """Bounds that, as doubles, would let numbers beyond."""
    for names, sign in ((_LOWER, -1), (_UPPER, 1)):
        for name in names:
            bound = schema.get(name)
            if type(bound) is not int or -(2**53) <= bound <= 2**53:
                continue
            if abs(bound) >= _MOST_INTEGER and schema.get("type") == "integer":
                continue
            if abs(bound) > _MOST_DOUBLE or sign * (int(float(bound)) - bound) > 0:
                yield bound
