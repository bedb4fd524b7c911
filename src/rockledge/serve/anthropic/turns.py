"""Turns of Anthropic's API, and the messages of a conversation that they are.

Content is a string or a list of blocks (docs.claude.com/en/api/messages). Turns of the same role after each
other are one there, and so they are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from rockledge.serve.conversation.messages import joined, text_content
from rockledge.serve.errors import ApiError
from rockledge.serve.schema import (
    MOST_SHOWN,
    Field,
    Reading,
    Schema,
    expected,
    flag,
    json_object,
    one_of,
    read_body,
    text,
    valid_text,
    wrong,
)

CONTENT = text_content({"text": "text"})
NOTHING = Field(lambda value, reading: value)
BETWEEN = "\n\n"
"""Stands between the texts of turns that are one."""

FAILED = "Error: "
"""What the result of a call that failed begins with: chat templates have no other way to show that."""


def _blocks(value: Any, reading: Reading) -> str | list[Any]:
    if isinstance(value, str):
        return valid_text(value)
    if not isinstance(value, list):
        raise expected("a string or a list of blocks")
    return value


BLOCKS = Field(_blocks, {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]})


class Turn(Schema):
    """A message."""

    tolerant: ClassVar[bool] = True

    role: Annotated[str, one_of("user", "assistant")]
    content: Annotated[str | list[Any], BLOCKS]


class Block(Schema):
    """A block of content."""

    tolerant: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"cache_control", "caller", "citations", "data", "signature", "toolset_name"}
    )

    type: Annotated[Any, NOTHING] = None


class TextBlock(Block):
    """Text of either side."""

    text: Annotated[str, text()]


class ThinkingBlock(Block):
    """Thoughts of the assistant."""

    thinking: Annotated[str, text()] = ""


class RedactedThinkingBlock(Block):
    """Thoughts that nobody can read but Anthropic."""


class ToolUseBlock(Block):
    """A call that the assistant made."""

    id: Annotated[str, text()]
    name: Annotated[str, text()]
    input: Annotated[dict[str, Any], json_object()]


class ToolResultBlock(Block):
    """What a call gave."""

    tool_use_id: Annotated[str, text()]
    content: Annotated[str, CONTENT] = ""
    is_error: Annotated[bool, flag()] = False


READ: Mapping[str, Mapping[str, type[Block]]] = {
    "user": {"text": TextBlock, "tool_result": ToolResultBlock},
    "assistant": {
        "text": TextBlock,
        "thinking": ThinkingBlock,
        "redacted_thinking": RedactedThinkingBlock,
        "tool_use": ToolUseBlock,
    },
}
"""The blocks that turns of a role may have, by type."""


def messages_of(system: str | None, turns: Sequence[Any], reading: Reading) -> list[dict[str, Any]]:
    """The messages, as chat completions have them, of `system` and the turns of `messages`.

    Raises:
        ApiError: 400 that names the turn.
    """
    messages: list[dict[str, Any]] = []
    if system:
        messages.append({"role": "system", "content": system})
    for number, given in enumerate(turns):
        place = f"messages[{number}]"
        turn = read_body(Turn, given, reading, place)
        blocks = _blocks_of(turn, place, reading)
        if turn.role == "user":
            _add_user(blocks, messages)
        else:
            _add_assistant(blocks, messages)
    last = messages[-1]
    if last["role"] == "assistant" and ("tool_calls" in last or "content" not in last):
        raise wrong(
            f"messages[{len(turns) - 1}]",
            "text that the answer continues, or followed by a turn of the user with the results of its calls",
        )
    return [joined(message) for message in messages]


def _blocks_of(turn: Turn, place: str, reading: Reading) -> list[Block]:
    if isinstance(turn.content, str):
        return [TextBlock(text=turn.content)]
    return [
        _block(item, turn.role, f"{place}.content[{number}]", reading)
        for number, item in enumerate(turn.content)
    ]


def _block(item: Any, role: str, place: str, reading: Reading) -> Block:
    if not isinstance(item, dict):
        raise wrong(place, "an object with a 'type'")
    kind = item.get("type")
    if isinstance(kind, str) and kind in READ[role]:
        return read_body(READ[role][kind], item, reading, place)
    shown = f"'{kind[:MOST_SHOWN]}'" if isinstance(kind, str) else "no string"
    raise ApiError(
        f"'{place}.type' is {shown}, but turns of the {role} are read with {', '.join(READ[role])} only",
        param=f"{place}.type",
        code="unsupported_parameter",
    )


def _add_user(blocks: Sequence[Block], messages: list[dict[str, Any]]) -> None:
    said: list[str] = []

    def say() -> None:
        if messages and messages[-1]["role"] == "user":
            messages[-1]["content"] += [BETWEEN, *said]
        else:
            messages.append({"role": "user", "content": [*said]})
        said.clear()

    for block in blocks:
        if isinstance(block, TextBlock):
            said.append(block.text)
        elif isinstance(block, ToolResultBlock):
            if said:
                say()
            content = FAILED * block.is_error + block.content
            messages.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    if said or not blocks:
        say()


def _add_assistant(blocks: Sequence[Block], messages: list[dict[str, Any]]) -> None:
    if messages and messages[-1]["role"] == "assistant":
        turn = messages[-1]
    else:
        turn = {"role": "assistant"}
        messages.append(turn)
    between = [BETWEEN] if "content" in turn else []
    for block in blocks:
        if isinstance(block, TextBlock):
            turn.setdefault("content", []).extend([*between, block.text])
            between = []
        elif isinstance(block, ThinkingBlock) and block.thinking:
            turn.setdefault("reasoning_content", []).append(block.thinking)
        elif isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": block.input}
            turn.setdefault("tool_calls", []).append({"id": block.id, "function": function})
    if len(turn) == 1:
        turn["content"] = []
