"""Declared fields of requests: bounds, types, and that nothing is silently ignored."""

import math
from contextlib import suppress
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.serve.accepted import HARMLESS, HARMLESS_ELSEWHERE, NEUTRAL
from rockledge.serve.errors import ApiError
from rockledge.serve.schema import Reading, Schema, number, read_body, text, whole

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


UNKNOWN = "'?' is not a parameter of this endpoint; leave it out"


class Inner(Schema):
    word: Annotated[str, text()]


class Body(Schema):
    real: Annotated[float, number(0.0, 2.0)] = 1.0
    above: Annotated[float, number(0.0)] = 1.0
    count: Annotated[int, whole(0, 10, -1)] = 3
    word: Annotated[str, text()] = ""
    inner: list[Inner] = []  # noqa: RUF012


def read(body: Any, strict: bool = False) -> Body:
    return read_body(Body, body, Reading(strict))


def refusal(body: Any) -> Any:
    """The error of a body, None if it is taken."""
    try:
        read(body)
    except ApiError as error:
        return error
    return None


@given(json_values)
def test_a_number_is_in_its_range_or_refused(value: object) -> None:
    with suppress(ApiError):
        found = read({"real": value}).real
        assert 0.0 <= found <= 2.0
        assert value is None or found == value


@given(json_values, st.booleans())
def test_an_integer_is_in_its_range_or_refused(value: object, strict: bool) -> None:
    with suppress(ApiError):
        assert read({"count": value}, strict).count in range(0 if strict else -1, 11)


@given(json_values)
def test_a_body_is_an_object_or_refused(value: object) -> None:
    if isinstance(value, dict) and all(found is None for found in value.values()):
        assert read(value) == Body()
    else:
        with pytest.raises(ApiError, match=r"JSON object|not a parameter"):
            read(value)


@given(st.dictionaries(st.sampled_from(["real", "count", "word", "inner", "x"]), json_values))
def test_whatever_a_body_holds_its_mistake_is_named(body: dict[str, Any]) -> None:
    mistake = refusal(body)
    if mistake is not None:
        assert (mistake.status, mistake.param in mistake.message) == (400, True)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", [1], -0.1, 10**400])
def test_what_is_not_a_plain_number_is_refused(value: object) -> None:
    with pytest.raises(ApiError) as caught:
        read({"above": value})
    assert (caught.value.status, caught.value.param) == (400, "above")


@pytest.mark.parametrize("value, expected", [(8.0, 8), (-0.0, 0), (3, 3), (-1, -1)])
def test_a_number_without_a_fraction_is_whole(value: float, expected: int) -> None:
    assert read({"count": value}).count == expected


@pytest.mark.parametrize("value", [8.5, math.nan, math.inf, 1e300, True, "8", -2])
def test_what_is_not_whole_is_refused(value: object) -> None:
    with pytest.raises(ApiError, match="'count' must be a whole number between 0 and 10"):
        read({"count": value})


@pytest.mark.parametrize("body", [{"count": 8.0}, {"count": -1}, {"keep_alive": 1}, {"cache_prompt": True}])
def test_strictly_what_only_other_servers_take_is_refused(body: dict[str, Any]) -> None:
    read(body)
    with pytest.raises(ApiError, match=next(iter(body))):
        read(body, strict=True)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ApiError, match="surrogate"):
        read({"word": "\ud800"})
    with pytest.raises(ApiError, match="not a parameter"):
        read({"\ud800": 1})


@pytest.mark.parametrize("name", sorted(HARMLESS | HARMLESS_ELSEWHERE))
def test_fields_that_cannot_change_the_answer_are_taken(name: str) -> None:
    read({name: "anything"})


@pytest.mark.parametrize(
    "name, value",
    [
        ("tools", [{"type": "function"}]),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_object"}),
        ("suffix", "end"),
        ("modalities", ["audio"]),
    ],
)
def test_fields_that_would_change_the_answer_are_refused(name: str, value: object) -> None:
    with pytest.raises(ApiError, match=name) as caught:
        read({name: value})
    assert caught.value.param == name
    assert caught.value.status == 400


@pytest.mark.parametrize("name, value", [(name, value) for name in NEUTRAL for value in NEUTRAL[name]])
def test_values_that_ask_for_nothing_are_taken(name: str, value: object) -> None:
    read({name: value})


@pytest.mark.parametrize(
    "body, param, sentence",
    [
        ({"temprature": 0}, "temprature", UNKNOWN.replace("?", "temprature")),
        ({"inner": {}}, "inner", "'inner' must be a list"),
        ({"inner": [1]}, "inner[0]", "'inner[0]' must be a JSON object"),
        ({"inner": [{"word": "a"}, {}]}, "inner[1].word", "'inner[1].word' is missing"),
        ({"inner": [{"word": 1}]}, "inner[0].word", "'inner[0].word' must be a string"),
        ({"inner": [{"word": "", "x": 1}]}, "inner[0].x", UNKNOWN.replace("?", "inner[0].x")),
    ],
)  # fmt: skip
def test_mistakes_are_named_where_they_are(body: Any, param: str, sentence: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(body)
    assert (caught.value.param, caught.value.message) == (param, sentence)
