"""What makes the prompt of a conversation, as requests of every API are read into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from rockledge.serve.conversation.call_forms import Tools
from rockledge.serve.conversation.messages import Message, Tool
from rockledge.serve.conversation.tools import TOOL_CHOICE
from rockledge.serve.options import Options
from rockledge.serve.schema import (
    Field,
    Reading,
    Schema,
    check_texts,
    expected,
    flag,
    json_object,
    one_of,
    wrong,
)


def _documents(value: Any, reading: Reading) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise expected("a list of objects, such as with 'title' and 'text'")
    checked: list[dict[str, Any]] = check_texts(value)
    return checked


DOCUMENTS = Field(_documents, {"type": "array", "items": {"type": "object"}})
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


class ConversationBody(Schema):
    """What makes the prompt of a conversation, with the names of OpenAI's chat completions."""

    messages: Annotated[list[Message], pydantic.Field(min_length=1)]
    tools: list[Tool] = []  # noqa: RUF012 (pydantic copies it)
    tool_choice: Annotated[str | dict[str, Any] | None, TOOL_CHOICE] = None
    chat_template_kwargs: Annotated[dict[str, Any], json_object()] = {}  # noqa: RUF012
    reasoning_effort: Annotated[str | None, one_of(*EFFORTS)] = None
    documents: Annotated[list[dict[str, Any]], DOCUMENTS] = []  # noqa: RUF012
    continue_final_message: Annotated[bool, flag()] = False
    add_generation_prompt: Annotated[bool | None, flag()] = None

    @property
    def continued(self) -> bool:
        """Whether the last message is the beginning of the answer."""
        return self.continue_final_message or self.messages[-1].prefix

    def check(self) -> None:
        """Raises ApiError for fields that contradict each other."""
        early = next((i for i, message in enumerate(self.messages[:-1]) if message.prefix), None)
        if early is not None:
            raise wrong(f"messages[{early}].prefix", "left out, except in the last message")
        if not self.continued:
            return
        last = self.messages[-1]
        if last.role != "assistant" or last.tool_calls or last.content is None:
            raise wrong(f"messages[{len(self.messages) - 1}]", "text of the assistant, to be continued")
        if self.add_generation_prompt:
            raise wrong("add_generation_prompt", "left out where the last message is continued")


@dataclass(frozen=True)
class ConversationRequest:
    """A valid request for the next message of a conversation, whatever API it came by.

    `functions` are those that may be called, `one_call`: one of them at most, once; `logprobs` is the number
    of alternatives per token, None when not requested; `param` is the field that the messages came in.
    `truncated`: messages that do not fit go without their oldest turns.
    """

    body: ConversationBody
    options: Options
    functions: Tools
    one_call: bool = False
    logprobs: int | None = None
    param: str = "messages"
    truncated: bool = False
