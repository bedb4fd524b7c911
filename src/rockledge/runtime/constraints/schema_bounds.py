"""What a JSON schema must not be before it is compiled: too deep, or without an end.

Everything else that is wrong with a schema llguidance says itself.
"""

from collections.abc import Iterator
from typing import Any

from rockledge.errors import UsageError

MOST_DEPTH = 100
"""Of objects and lists in one another; llguidance reads no more than 128."""

MOST_JOINED = 8
"""Patterns and formats that one text may have to fit together. llguidance 1.9.1 looks whether any text does,
for seconds from 12 on, and for minutes and in gigabytes from 16 on."""

MOST_NESTED = 4000
"""References times the depth of the schema: how deep they can lead one into the other."""


def check_schema(schema: Any) -> None:
    """Raises UsageError, one sentence."""
    if schema is False:
        raise UsageError("the JSON schema is false, which no value fits")
    depth = _depth(schema)
    if depth > MOST_DEPTH:
        raise UsageError(f"the JSON schema is more than {MOST_DEPTH} levels deep; make it flatter")
    refs = {node["$ref"] for node in objects(schema) if isinstance(node.get("$ref"), str)}
    if (1 + len(refs)) * depth > MOST_NESTED:
        raise UsageError(
            f"the JSON schema has {len(refs)} different references and {depth} levels; make it smaller"
        )
    _check_joined(schema)
    # It could relax what is checked here and ask for white space without an end.
    if any("x-guidance" in node for node in objects(schema)):
        raise UsageError("the JSON schema uses 'x-guidance', which is not supported; leave it out")
    targets = {ref: target(schema, ref) for ref in refs}
    if loop := _loop(targets):
        raise UsageError(
            f"the reference {loop[:80]!r} of the JSON schema leads to itself with no property or item in "
            "between, which says nothing; leave it out"
        )
    if not _ends(schema, _ending(targets)):
        raise UsageError(
            "every value of the JSON schema would be endless, because it requires itself; make a reference "
            "optional or give it an alternative"
        )


# Keywords by which schemas are about the same value.
_IN_PLACE = ("$ref", "allOf", "anyOf", "oneOf")
# Keywords that say something about texts, or lead to values that may be.
_TEXTUAL = (
    "pattern",
    "format",
    "properties",
    "patternProperties",
    "additionalProperties",
    "items",
    "prefixItems",
)


def _check_joined(schema: Any) -> None:
    """Bounds how many patterns can meet: by how many there are, and by how many schemas are joined."""
    patterns = {
        (key, node[key]) for node in objects(schema) for key in ("pattern", "format") if _is_text(node, key)
    }
    joined = 1 + sum(map(_joins, objects(schema)))
    if min(len(patterns), joined) > MOST_JOINED:
        raise UsageError(
            f"the JSON schema has {len(patterns)} 'pattern' and 'format' in {joined} schemas that are "
            f"joined by allOf and the like, expected at most {MOST_JOINED} of one of them; join fewer"
        )


def _is_text(node: dict[str, Any], key: str) -> bool:
    return isinstance(node.get(key), str)


def _joins(node: dict[str, Any]) -> int:
    """How many more schemas than one a schema joins for its value."""
    parts = len(_list(node, "allOf")) + sum(name in node for name in _IN_PLACE if name != "allOf")
    parts += any(name in node for name in _TEXTUAL)
    return max(parts - 1, 0)


def _depth(value: Any) -> int:
    """Levels of objects and lists, up to one more than allowed."""
    level, depth = [value], 0
    while level and depth <= MOST_DEPTH:
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        level, depth = inner, depth + 1
    return depth


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value, itself included."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def target(schema: Any, ref: str) -> Any:
    """What a reference into the same schema points at; True, which allows everything, for another one."""
    if not ref.startswith("#") or (len(ref) > 1 and not ref.startswith("#/")):
        return True
    found = schema
    for part in ref[2:].split("/") if len(ref) > 1 else ():
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name[:9]) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return True
    return found


def _loop(targets: dict[str, Any]) -> str | None:
    """A reference that leads to itself for the same value. What fits it is not defined (JSON Schema core,
    section 9.4.1), and validators follow it without an end."""
    leads = {ref: [one for one in _in_place(target) if one in targets] for ref, target in targets.items()}
    done: set[str] = set()
    for first in leads:
        path: dict[str, list[str]] = {first: list(leads[first])}  # the way here, with what is left to try
        while path:
            ref, left = next(reversed(path.items()))
            if not left:
                done.add(ref)
                del path[ref]
            elif (following := left.pop()) in path:
                return following
            elif following not in done:
                path[following] = list(leads[following])
    return None


def _in_place(schema: Any) -> Iterator[str]:
    """References of a schema that are about the same value as it is."""
    left = [schema]
    while left:
        one = left.pop()
        if not isinstance(one, dict):
            continue
        if isinstance(one.get("$ref"), str):
            yield one["$ref"]
        for name in ("allOf", "anyOf", "oneOf"):
            left += _list(one, name)


def _ending(targets: dict[str, Any]) -> dict[str, bool]:
    """Whether a value of each reference can end: the least fixed point, found from none of them on."""
    ending = dict.fromkeys(targets, False)
    changed = True
    while changed:
        changed = False
        for ref, target in targets.items():
            if not ending[ref] and _ends(target, ending):
                ending[ref] = changed = True
    return ending


def _ends(schema: Any, ending: dict[str, bool]) -> bool:
    """Whether some value of a schema ends, if it is one at all."""
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return True
    if isinstance(ref := schema.get("$ref"), str) and not ending[ref]:
        return False
    if not all(_ends(one, ending) for one in _list(schema, "allOf")):
        return False
    for name in ("anyOf", "oneOf"):
        options = _list(schema, name)
        if options and not any(_ends(one, ending) for one in options):
            return False
    types = schema.get("type")
    types = [types] if isinstance(types, str) else types
    if not isinstance(types, list) or any(one not in ("object", "array") for one in types):
        return True
    return ("object" in types and _object_ends(schema, ending)) or (
        "array" in types and _array_ends(schema, ending)
    )


def _object_ends(schema: dict[str, Any], ending: dict[str, bool]) -> bool:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = [name for name in _list(schema, "required") if isinstance(name, str)]
    return all(_ends(properties.get(name, True), ending) for name in required)


def _array_ends(schema: dict[str, Any], ending: dict[str, bool]) -> bool:
    least = schema.get("minItems", 0)
    least = least if isinstance(least, int) else 0
    first = _list(schema, "prefixItems") or _list(schema, "items")
    if not all(_ends(one, ending) for one in first[:least]):
        return False
    return least <= len(first) or _ends(schema.get("items", True), ending)


def _list(schema: dict[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []
