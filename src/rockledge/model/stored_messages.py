"""The conversation in a line of JSON, as chat templates take it: what a file has in the place of a text, a
template would write out as Python shows it, and a model would learn that."""

from collections.abc import Mapping
from typing import Any

from rockledge.errors import UsageError


def stored_messages(entry: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """The `messages` of an entry, each with a `role`, and with texts as its contents: those of a list of text
    parts are joined. Null stands for what is not there.

    Raises:
        UsageError: with `place`, such as "line 3 of chats.jsonl", what is not a message.
    """
    messages = entry["messages"]
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise UsageError(
            f'{place}: "messages" has an entry that is not an object with "role" and "content"; correct it'
        )
    return [_message(message, f"{place}: message {number}") for number, message in enumerate(messages, 1)]


def stored_list(entry: Mapping[str, Any], key: str, place: str) -> list[Any]:
    """A list beside the messages, such as `tools`, empty where there is none; UsageError otherwise."""
    value = entry.get(key)
    if not isinstance(value, (list, type(None))):
        raise UsageError(f'{place}: "{key}" is {_shown(value)}, expected a list; correct it')
    return value or []


def _message(message: Mapping[str, Any], place: str) -> dict[str, Any]:
    calls = stored_list(message, "tool_calls", place)
    if not all(isinstance(call, dict) for call in calls):
        raise UsageError(f'{place}: "tool_calls" has an entry that is not an object; correct it')
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text(part, place) for part in content)
    elif content is None and not calls:
        raise UsageError(f'{place} has neither "content" nor "tool_calls"; add one, or leave the message out')
    elif not isinstance(content, (str, type(None))):
        raise UsageError(f'{place}: "content" is {_shown(content)}, expected text; correct it')
    return {**message, "content": content}


def _text(part: Any, place: str) -> str:
    """What a part of a content says."""
    text = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part
    if not isinstance(text, str):
        raise UsageError(f'{place}: "content" has {_shown(part)}, expected parts that are text; correct it')
    return text


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
