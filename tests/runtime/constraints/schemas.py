"""JSON schemas at random: types, nesting, references, enums, bounds and patterns."""

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

NAMES = st.sampled_from(["a", "b", "name", "é", "two words", 'quo"te', "back\\slash", "x" * 12])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PATTERNS = st.sampled_from(
    ["^[a-z]{1,4}$", "^(ab|cd)*$", r"^\d{2}-\d{2}$", "[0-9]", "^x", "y$", "^[^a]{2,3}$", "^(?:é|ß)+z$"]
)
LEAST_INTEGER, MOST_INTEGER = -(10**6), 10**6

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(LEAST_INTEGER, MOST_INTEGER)
    | st.sampled_from([0.5, -2.25])
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)


@st.composite
def _strings(draw: st.DrawFn, bounded: bool) -> Schema:
    if not bounded and draw(st.booleans()):
        return {"type": "string", "pattern": draw(PATTERNS)}
    least = draw(st.integers(0, 4))
    schema: Schema = {"type": "string", "minLength": least}
    if bounded or draw(st.booleans()):
        schema["maxLength"] = least + draw(st.integers(0, 6))
    return schema


@st.composite
def _integers(draw: st.DrawFn, bounded: bool) -> Schema:
    least = draw(st.integers(LEAST_INTEGER, MOST_INTEGER))
    most = draw(st.integers(least, MOST_INTEGER))
    schema: Schema = {"type": "integer"}
    if bounded or draw(st.booleans()):
        schema |= {"minimum": least, "maximum": most}
    elif draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 12))
    return schema


@st.composite
def _numbers(draw: st.DrawFn) -> Schema:
    schema: Schema = {"type": "number"}
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = draw(st.sampled_from([-3, 0, 0.5]))
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = draw(
            st.sampled_from([1, 2.25, 1000])
        )
    return schema


def _leaves(bounded: bool) -> st.SearchStrategy[Schema]:
    plain = [
        _strings(bounded),
        _integers(bounded),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}]),
        st.lists(VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
        VALUES.map(lambda value: {"const": value}),
    ]
    return st.one_of(plain if bounded else [*plain, _numbers()])


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Schema], bounded: bool) -> Schema:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    schema: Schema = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    if bounded or draw(st.booleans()):
        schema["additionalProperties"] = False
    elif draw(st.booleans()):
        schema["additionalProperties"] = draw(inner)
    return schema


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Schema], bounded: bool) -> Schema:
    least = draw(st.integers(0, 2))
    schema: Schema = {"type": "array", "items": draw(inner), "minItems": least}
    if bounded or draw(st.booleans()):
        schema["maxItems"] = least + draw(st.integers(0, 2))
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    return schema


@st.composite
def schemas(draw: st.DrawFn, bounded: bool = False) -> Schema:
    """A schema; of a `bounded` one every value has a length that the schema limits."""
    names = draw(st.lists(st.sampled_from(["node", "leaf~/", "ü"]), unique=True, max_size=2))
    refs = [{"$ref": "#/$defs/" + name.replace("~", "~0").replace("/", "~1")} for name in names]

    def nested(leaves: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
        return st.recursive(
            leaves,
            lambda inner: (
                _objects(inner, bounded)
                | _arrays(inner, bounded)
                | st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
            ),
            max_leaves=6,
        )

    leaves = _leaves(bounded)
    # A bounded schema cannot lead to itself: what is referred to has no references.
    # Of another one a reference may lead to itself, but by a property or an item.
    inside = nested(leaves)
    if not bounded:
        referring = nested(st.one_of(leaves, *map(st.just, refs)))
        inside = st.one_of(inside, _objects(referring, bounded), _arrays(referring, bounded))
    schema = draw(nested(st.one_of(leaves, *map(st.just, refs))))
    return {**schema, "$defs": {name: draw(inside) for name in names}} if names else schema
