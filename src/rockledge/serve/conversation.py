"""Messages as chat templates expect them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rockledge.serve.messages import Message, ToolCall


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as objects, the arguments of calls as objects too, as transformers documents it
    ("developer" is the newer name of "system")."""
    return [_template_message(message) for message in messages]


def _template_message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.content,
        "reasoning_content": message.thoughts,
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
    return found if isinstance(found, dict) else arguments
