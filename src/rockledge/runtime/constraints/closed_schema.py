"""Objects whose JSON schema lists properties, and says nothing of others, get those alone.

JSON Schema would allow any others. Nobody who lists properties wants them, functions do not take them, and a
small model that may invent some seldom comes to an end. OpenAI's strict schemas demand
`additionalProperties: false`; llama.cpp takes it as said (its grammars/README.md). An answer that fits the
closed schema fits the one that was given.
"""

from typing import Any

from rockledge.runtime.constraints.schema_bounds import target

_ALONE = frozenset(
    {"$comment", "$defs", "$id", "$ref", "$schema", "anyOf", "default", "definitions", "deprecated"}
    | {"description", "discriminator", "examples", "nullable", "oneOf", "readOnly", "title", "type"}
    | {"writeOnly"}
)
"""Keywords beside which alternatives and references can be closed: none of them speaks of properties."""

_COMBINING = ("allOf", "dependentSchemas", "if", "not")
"""Keywords by which several schemas judge one object; what is closed in one may be demanded by another, or
decide which of them counts."""

_SCHEMAS_BY_NAME = ("$defs", "definitions", "patternProperties", "properties")
_SCHEMAS = ("additionalProperties", "items")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "prefixItems", "items")


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties` false wherever properties are listed, and as it was where
    several of its parts speak of one object."""
    if any(_combines(node, schema) for node in _nodes(schema)):
        return schema
    return _closed(schema)


def _combines(node: dict[str, Any], root: Any) -> bool:
    if any(name in node for name in _COMBINING):
        return True
    if "oneOf" in node and not _told_apart(node["oneOf"], root):
        return True
    several = sum(name in node for name in ("anyOf", "oneOf", "$ref"))
    return several > 1 or (several == 1 and not _ALONE.issuperset(node))


def _told_apart(options: Any, root: Any) -> bool:
    """Whether every option demands a property of which each says another constant, as a union of pydantic
    with a discriminator: then no value fits two of them, closed or not."""
    if not isinstance(options, list) or not options:
        return False
    constants = [_constants(option, root) for option in options]
    names = set.intersection(*map(set, constants))
    return any(len({each[name] for each in constants}) == len(options) for name in names)


def _constants(option: Any, root: Any) -> dict[str, str]:
    """The properties that an option demands to be one string each."""
    if isinstance(option, dict) and isinstance(ref := option.get("$ref"), str):
        option = target(root, ref)
    listed = option.get("properties") if isinstance(option, dict) else None
    required = option.get("required") if isinstance(option, dict) else None
    if not isinstance(listed, dict) or not isinstance(required, list):
        return {}
    found = {name: inner.get("const") for name, inner in listed.items() if isinstance(inner, dict)}
    return {name: value for name, value in found.items() if isinstance(value, str) and name in required}


def _nodes(schema: Any) -> list[dict[str, Any]]:
    """All schemas within a schema, itself included, that are objects."""
    found, left = [], [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            found.append(node)
            left += [inner for _, _, inner in _inner(node)]
    return found


def _inner(node: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The schemas right within one: keyword, name or number (None: the keyword's own), schema."""
    found: list[tuple[str, Any, Any]] = []
    for keyword in _SCHEMAS_BY_NAME:
        if isinstance(named := node.get(keyword), dict):
            found += [(keyword, name, inner) for name, inner in named.items()]
    for keyword in _LISTS_OF_SCHEMAS:
        if isinstance(listed := node.get(keyword), list):
            found += [(keyword, number, inner) for number, inner in enumerate(listed)]
    own = [keyword for keyword in _SCHEMAS if isinstance(node.get(keyword), dict)]
    return found + [(keyword, None, node[keyword]) for keyword in own]


def _closed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    found = dict(node)
    for keyword, name, inner in _inner(node):
        if name is None:
            found[keyword] = _closed(inner)
        else:
            if found[keyword] is node[keyword]:
                found[keyword] = node[keyword].copy()
            found[keyword][name] = _closed(inner)
    return found | {"additionalProperties": False} if _can_be_closed(node) else found


def _can_be_closed(node: dict[str, Any]) -> bool:
    listed, required, least = node.get("properties"), node.get("required", []), node.get("minProperties", 0)
    if not isinstance(listed, dict) or not listed or not isinstance(required, list):
        return False
    silent = "additionalProperties" not in node and "unevaluatedProperties" not in node
    demanded = {name for name in required if isinstance(name, str)}
    enough = isinstance(least, (int, float)) and least <= len(listed)
    return silent and enough and demanded <= listed.keys()
