"""Messages of files: what is text, what is joined, and what no template may write out as Python shows it."""

from typing import Any

import pytest

from rockledge.errors import UsageError
from rockledge.model.stored_messages import stored_messages


def read(message: dict[str, Any]) -> dict[str, Any]:
    return stored_messages({"messages": [{"role": "user", "content": "a"}, message]}, "line 3 of x")[1]


def test_parts_that_are_text_are_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"text": "and "}, "two"]
    assert read({"role": "user", "content": parts, "name": "n"}) == {
        "role": "user",
        "content": "one and two",
        "name": "n",
    }


def test_a_call_of_a_tool_needs_no_content() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    assert read({"role": "assistant", "content": None, "tool_calls": [call]})["tool_calls"] == [call]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": float("nan")}, '"content" is nan, expected text'),
        ({"content": {"text": "a"}}, "expected text"),
        ({"content": 5}, "expected text"),
        ({"content": [{"type": "image_url", "image_url": "x"}]}, "expected parts that are text"),
        ({"content": [7]}, "expected parts that are text"),
        ({"content": None}, 'neither "content" nor "tool_calls"'),
        ({}, 'neither "content" nor "tool_calls"'),
        ({"content": None, "tool_calls": []}, 'neither "content" nor "tool_calls"'),
        ({"content": "a", "tool_calls": "f()"}, "expected a list"),
        ({"content": "a", "tool_calls": ["f()"]}, "not an object"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(message: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"^line 3 of x: message 2.*{said}"):
        read({"role": "assistant", **message})
