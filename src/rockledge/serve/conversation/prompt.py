"""A conversation as a chat template takes it, and its prompt."""

from __future__ import annotations

import itertools
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rockledge.errors import UsageError
from rockledge.model.chat import ChatTemplate
from rockledge.serve.conversation.dialect import Dialect
from rockledge.serve.conversation.generic_tools import needs_generic, plain_messages
from rockledge.serve.conversation.messages import Message, Tool, ToolCall
from rockledge.serve.schema import MOST_NESTED, depth

CONTINUED = "\uf8f1 "
"""Stands after the text that is continued, while it is rendered. If the template keeps its space, it keeps
that of the text too; as transformers has it."""

ATTEMPTS_S = 1.0
"""Seconds after which no other way to write a conversation is tried: such a template is slow, not choosy."""


@dataclass(frozen=True)
class Conversation:
    """`messages`, `tools` and `documents` as JSON; `switches`: further variables of the template; `answer`:
    whether the opening of the next answer follows; `continued`: whether the last message is continued."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    switches: dict[str, Any] = field(default_factory=dict)
    answer: bool = True
    continued: bool = False


def template_messages(
    messages: Sequence[Message], dialect: Dialect, continued: bool = False
) -> list[dict[str, Any]]:
    """The messages as objects, the arguments of calls as objects too, as transformers documents it. Thoughts
    that a client left in an answer are put where templates look for them, which mostly leave them out; one
    that is `continued` stays as it is."""
    last = len(messages) - 1
    return [
        _template_message(message, dialect, split=not continued or number < last)
        for number, message in enumerate(messages)
    ]


def template_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools as the client wrote them."""
    return [tool.given for tool in tools]


def _template_message(message: Message, dialect: Dialect, *, split: bool) -> dict[str, Any]:
    content, thoughts = message.content, message.thoughts
    split = split and message.role == "assistant" and thoughts is None
    if split and content and dialect.thoughts is not None:
        thoughts, content = dialect.thoughts.split(content)
    found: dict[str, Any] = {
        # "developer" is the newer name of "system".
        "role": "system" if message.role == "developer" and not dialect.developer else message.role,
        "content": content,
        "reasoning_content": thoughts,
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "tool_calls": [_template_call(call) for call in message.tool_calls] or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _template_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": _object(call.function.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _object(arguments: str | dict[str, Any]) -> str | dict[str, Any]:
    """The object that a string of JSON means; the string itself where it means none."""
    if isinstance(arguments, dict):
        return arguments
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) and depth(found) <= MOST_NESTED else arguments


def render(chat: ChatTemplate, dialect: Dialect, conversation: Conversation) -> str:
    """The prompt of a conversation. Where the template knows no tools, they are put into the messages; where
    it refuses how calls are written, another way that templates want them is tried.

    Raises:
        UsageError: the template refuses the messages, or leaves out the one to be continued.
    """
    first: UsageError | None = None
    end = time.monotonic() + ATTEMPTS_S
    for attempt in _attempts(dialect, conversation):
        try:
            return _rendered(chat, attempt)
        except UsageError as error:
            first = first or error
        if time.monotonic() > end:
            break
    assert first is not None
    raise first


def _attempts(dialect: Dialect, conversation: Conversation) -> Iterator[Conversation]:
    messages, tools = conversation.messages, conversation.tools
    if not dialect.takes_tools and needs_generic(messages, tools):
        for system in (True, False):
            plain = plain_messages(messages, tools, system=system)
            yield replace(conversation, messages=plain, tools=None)
        return
    yield conversation
    if any("tool_calls" in message for message in messages):
        changes = [_with_content, _with_short_ids, _with_strings]
        for count in range(1, len(changes) + 1):
            for chosen in itertools.combinations(changes, count):
                changed = messages
                for change in chosen:
                    changed = [change(message) for message in changed]
                yield replace(conversation, messages=changed)


def _with_content(message: dict[str, Any]) -> dict[str, Any]:
    """For templates that add something to the content of every message."""
    return {"content": "", **message}


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """For Mistral's templates, which want ids of calls to be nine letters or digits."""
    found = dict(message)
    if "tool_call_id" in found:
        found["tool_call_id"] = _short_id(found["tool_call_id"])
    if "tool_calls" in found:
        found["tool_calls"] = [{**call, "id": _short_id(call["id"])} for call in found["tool_calls"]]
    return found


def _short_id(name: str) -> str:
    if re.fullmatch("[a-zA-Z0-9]{9}", name):
        return name
    return f"{zlib.crc32(name.encode()):09x}"


def _with_strings(message: dict[str, Any]) -> dict[str, Any]:
    """For templates that want arguments as text."""
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [_with_string(call) for call in message["tool_calls"]]}


def _with_string(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    if isinstance(function["arguments"], str):
        return call
    return {
        **call,
        "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)},
    }


def _rendered(chat: ChatTemplate, conversation: Conversation) -> str:
    def text(messages: Sequence[dict[str, Any]]) -> str:
        return chat.render(
            messages,
            add_generation_prompt=conversation.answer and not conversation.continued,
            tools=conversation.tools,
            documents=conversation.documents,
            switches=conversation.switches,
        )

    return _cut(text, conversation.messages) if conversation.continued else text(conversation.messages)


def _cut(text: Callable[[Sequence[dict[str, Any]]], str], messages: Sequence[dict[str, Any]]) -> str:
    """The prompt up to where the last message's content ends."""
    final = {**messages[-1], "content": messages[-1].get("content", "") + CONTINUED}
    whole = text([*messages[:-1], final])
    place = whole.rfind(CONTINUED.strip())
    if place < 0:
        raise UsageError("the model's chat template leaves out the last message, so it cannot be continued")
    kept = whole.startswith(CONTINUED, place)
    return whole[:place] if kept else whole[:place].rstrip()
