"""Tools in plain messages, for models whose chat template knows none: documented in docs/api.md.

The functions stand in the system message, calls and results in turns of the assistant and the user, all in
the marks of Hermes, which most models have seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

INSTRUCTIONS = """You can call functions. Each line here describes one as a JSON schema:
<tools>
{functions}
</tools>
To call a function, write its name and arguments as a JSON object, in these tags and with nothing after them:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>
You may write several such calls. Their results come in <tool_response></tool_response> tags. If no function \
helps, answer as usual."""


def needs_generic(messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None) -> bool:
    """Whether a conversation has anything that such a template cannot render."""
    return bool(tools) or any("tool_calls" in m or m["role"] == "tool" for m in messages)


def plain_messages(
    messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, *, system: bool = True
) -> list[dict[str, Any]]:
    """The same conversation without tools; without `system` messages either, their text being put before the
    first turn of the user."""
    plain: list[dict[str, Any]] = []
    after_result = False
    for message in messages:
        found = _plain(message)
        joined = after_result and found["role"] == "user"  # many templates refuse two turns of one speaker
        if joined:
            plain[-1] = {**plain[-1], "content": f"{plain[-1]['content']}\n{found['content']}"}
        else:
            plain.append(found)
        after_result = message["role"] == "tool"
    told = [message["content"] for message in plain if message["role"] == "system"]
    if tools:
        functions = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        told.append(INSTRUCTIONS.format(functions=functions))
    turns = [message for message in plain if message["role"] != "system"]
    if not told:
        return turns
    text = "\n\n".join(told)
    if system:
        return [{"role": "system", "content": text}, *turns]
    if turns and turns[0]["role"] == "user":
        return [{**turns[0], "content": f"{text}\n\n{turns[0]['content']}"}, *turns[1:]]
    return [{"role": "user", "content": text}, *turns]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [
        "<tool_call>\n" + json.dumps(call["function"], ensure_ascii=False) + "\n</tool_call>"
        for call in message.get("tool_calls", ())
    ]
    if not calls:
        return message
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "content": "\n".join([content, *calls] if content else calls)}
