"""The input of a response: items, and the messages of a conversation that they are.

The items are those of OpenAI's API (platform.openai.com/docs/api-reference/responses/create). Items of one
answer, that is thoughts, text and calls after each other, are one message of the assistant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from rockledge.serve.conversation.messages import ARGUMENTS, joined, text_content
from rockledge.serve.errors import ApiError
from rockledge.serve.schema import (
    MOST_SHOWN,
    Field,
    Reading,
    Schema,
    expected,
    one_of,
    read_body,
    text,
    valid_text,
    wrong,
)

CONTENT = text_content({"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"})
THOUGHTS = text_content({"reasoning_text": "text", "text": "text"})
NOTHING = Field(lambda value, reading: value)


class Item(Schema):
    """What all items have."""

    tolerant: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"async", "caller", "encrypted_content", "id", "namespace", "phase", "status", "summary"}
    )

    type: Annotated[Any, NOTHING] = None


class MessageItem(Item):
    """A message of a user, the developer or the assistant."""

    role: Annotated[str, one_of("user", "assistant", "system", "developer")]
    content: Annotated[str, CONTENT]


class CallItem(Item):
    """A call that the assistant made."""

    call_id: Annotated[str, text()]
    name: Annotated[str, text()]
    arguments: Annotated[str | dict[str, Any], ARGUMENTS]


class ResultItem(Item):
    """What a call gave."""

    call_id: Annotated[str, text()]
    output: Annotated[str, CONTENT]


class ReasoningItem(Item):
    """Thoughts of the assistant. Their summary is OpenAI's way to hide them; it says nothing more."""

    content: Annotated[str | None, THOUGHTS] = None


ITEMS: Mapping[str, type[Item]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": ResultItem,
    "reasoning": ReasoningItem,
}


def _input(value: Any, reading: Reading) -> str | list[Any]:
    if isinstance(value, str):
        return valid_text(value)
    if not isinstance(value, list) or not value:
        raise expected("a string or a list of items that is not empty")
    return value


INPUT = Field(
    _input,
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}, "minItems": 1}]},
)


def messages_of(
    instructions: str | None, given: str | Sequence[Any], reading: Reading
) -> list[dict[str, Any]]:
    """The messages, as chat completions have them, of `instructions` and the items of `input`.

    Raises:
        ApiError: 400 that names the item.
    """
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for number, item in enumerate(given):
        _add(_item(item, f"input[{number}]", reading), messages)
    if not messages:
        raise wrong("input", "a string or a list with more than hidden thoughts")
    return [joined(message) for message in messages]


def _item(item: Any, place: str, reading: Reading) -> Item:
    if not isinstance(item, dict):
        raise wrong(place, "an object")
    kind = item.get("type") or "message"
    if isinstance(kind, str) and kind in ITEMS:
        return read_body(ITEMS[kind], item, reading, place)
    shown = f"'{kind[:MOST_SHOWN]}'" if isinstance(kind, str) else "no string"
    what = f"it must be one of {', '.join(ITEMS)}"
    if kind == "item_reference":
        what = "nothing is stored here; give the item itself"
    raise ApiError(f"'{place}.type' is {shown}; {what}", param=f"{place}.type", code="unsupported_parameter")


def _add(item: Item, messages: list[dict[str, Any]]) -> None:
    """Puts an item at the end of the messages. Texts of the assistant's are lists of what has come."""
    turn = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if isinstance(item, ResultItem):
        messages.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
    elif isinstance(item, MessageItem) and item.role != "assistant":
        messages.append({"role": item.role, "content": item.content})
    elif isinstance(item, MessageItem):
        if turn is None or ("content" in turn and "tool_calls" not in turn):
            turn = _begin(messages)
        turn.setdefault("content", []).append(item.content)
    elif isinstance(item, CallItem):
        turn = turn or _begin(messages)
        function = {"name": item.name, "arguments": item.arguments}
        turn.setdefault("tool_calls", []).append({"id": item.call_id, "function": function})
    elif isinstance(item, ReasoningItem) and item.content is not None:
        if turn is None or "content" in turn or "tool_calls" in turn:
            turn = _begin(messages)
        turn.setdefault("reasoning_content", []).append(item.content)


def _begin(messages: list[dict[str, Any]]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "assistant"}
    messages.append(turn)
    return turn
