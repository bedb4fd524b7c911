"""Reading of request fields: bounds, types, and that nothing is silently ignored."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.serve.errors import ApiError
from rockledge.serve.fields import HARMLESS, NEUTRAL, Fields

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_a_number_is_in_its_range_or_refused(value: object) -> None:
    with suppress(ApiError):
        number = Fields({"x": value}).number("x", 1.0, 0.0, 2.0)
        assert 0.0 <= number <= 2.0
        assert value is None or number == value


@given(json_values)
def test_an_integer_is_in_its_range_or_refused(value: object) -> None:
    with suppress(ApiError):
        assert Fields({"x": value}).integer("x", 3, -1, 20) in range(-1, 21)


@given(json_values)
def test_a_body_is_an_object_or_refused(value: object) -> None:
    if isinstance(value, dict):
        Fields(value)
    else:
        with pytest.raises(ApiError, match="JSON object"):
            Fields(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", [1], -0.1])
def test_what_is_not_a_plain_number_is_refused(value: object) -> None:
    with pytest.raises(ApiError) as caught:
        Fields({"x": value}).number("x", 1.0, 0.0)
    assert (caught.value.status, caught.value.param) == (400, "x")


@pytest.mark.parametrize("value, expected", [(8.0, 8), (-0.0, 0), (3, 3)])
def test_a_number_without_a_fraction_is_whole(value: float, expected: int) -> None:
    assert Fields({"x": value}).integer("x", None, 0, 10) == expected


@pytest.mark.parametrize("value", [8.5, math.nan, math.inf, 1e300, True, "8"])
def test_what_is_not_whole_is_refused(value: object) -> None:
    with pytest.raises(ApiError, match="'x' must be a whole number between 0 and 10"):
        Fields({"x": value}).integer("x", None, 0, 10)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ApiError, match="surrogate"):
        Fields({"x": "\ud800"}).text("x")


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_fields_that_cannot_change_the_answer_are_taken(name: str) -> None:
    Fields({name: "anything"}).finish()


@pytest.mark.parametrize(
    "name, value",
    [
        ("tools", [{"type": "function"}]),
        ("suffix", "end"),
        ("modalities", ["audio"]),
    ],
)
def test_fields_that_would_change_the_answer_are_refused(name: str, value: object) -> None:
    with pytest.raises(ApiError, match=name) as caught:
        Fields({name: value}).finish()
    assert caught.value.param == name
    assert caught.value.status == 400


@pytest.mark.parametrize("name, value", [(name, value) for name in NEUTRAL for value in NEUTRAL[name]])
def test_values_that_ask_for_nothing_are_taken(name: str, value: object) -> None:
    Fields({name: value}).finish()


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ApiError, match="'temprature'"):
        Fields({"temprature": 0}).finish()
