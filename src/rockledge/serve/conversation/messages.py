"""Messages of a conversation as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, model_validator

from rockledge.serve.schema import (
    Field,
    Reading,
    Schema,
    check_texts,
    expected,
    flag,
    json_object,
    mistake,
    one_of,
    text,
    valid_text,
)

ROLES = ("system", "developer", "user", "assistant", "tool")

JOINED = ("content", "reasoning_content")
"""Texts of a message that come piece by piece in some APIs."""


def joined(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose texts may be lists, with texts joined; with content, unless it calls tools."""
    texts = {key: "".join(message[key]) for key in JOINED if isinstance(message.get(key), list)}
    return {**message, **texts} if "tool_calls" in message else {"content": "", **message, **texts}


# Texts of content parts, by the part's type.
TEXT_PARTS = {"text": "text", "refusal": "refusal"}


def text_content(parts: Mapping[str, str]) -> Field:
    """A string, or a list of parts whose texts are taken one after the other; `parts` are the types of those
    that are text, with the name of what holds it."""

    def read(value: Any, reading: Reading) -> str:
        if not isinstance(value, list):
            if not isinstance(value, str):
                raise expected("a string or a list of text parts")
            return valid_text(value)
        texts = []
        for part in value:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind not in parts:
                why = f"holds '{kind[:40]}', but this server reads text only; leave it out"
                raise mistake("refused", name="", why=why)
            if not isinstance(kind, str) or not isinstance(part.get(parts[kind]), str):
                raise expected("a string or a list of text parts, each with 'type' and 'text'")
            texts.append(valid_text(part[parts[kind]]))
        return "".join(texts)

    part = {
        "type": "object",
        "properties": {"type": {"const": next(iter(parts))}, "text": {"type": "string"}},
        "required": ["type", "text"],
    }
    return Field(read, {"anyOf": [{"type": "string"}, {"type": "array", "items": part}]})


def _arguments(value: Any, reading: Reading) -> str | dict[str, Any]:
    if not isinstance(value, (str, dict)):
        raise expected("a string with a JSON object")
    checked: str | dict[str, Any] = check_texts(value)
    return checked


CONTENT = text_content(TEXT_PARTS)
ARGUMENTS = Field(_arguments, {"anyOf": [{"type": "string"}, {"type": "object"}]})


class CalledFunction(Schema):
    """A function and the arguments it was called with: JSON as a string, or the object itself."""

    tolerant: ClassVar[bool] = True

    name: Annotated[str, text()]
    arguments: Annotated[str | dict[str, Any], ARGUMENTS] = ""


class ToolCall(Schema):
    """A call that an assistant made."""

    tolerant: ClassVar[bool] = True

    id: Annotated[str, text()] = ""
    type: Annotated[str, one_of("function")] = "function"
    function: CalledFunction


class Message(Schema):
    """One turn. `content` is null where an assistant only called tools; fields that are not declared here
    are what clients keep for themselves. `prefix`: the
    answer continues it (Mistral, DeepSeek)."""

    tolerant: ClassVar[bool] = True
    refused: ClassVar[dict[str, str]] = {
        "images": "is not supported: this server reads text only; leave it out",
        "audio": "is not supported: this server reads text only; leave it out",
        "function_call": "belongs to an older API; use 'tool_calls'",
    }

    role: Annotated[str, one_of(*ROLES)]
    content: Annotated[str | None, CONTENT] = None
    name: Annotated[str | None, text()] = None
    tool_calls: list[ToolCall] = []  # noqa: RUF012 (pydantic copies it)
    tool_call_id: Annotated[str | None, text()] = None
    reasoning_content: Annotated[str | None, text()] = None
    reasoning: Annotated[str | None, text()] = None
    thinking: Annotated[str | None, text()] = None
    prefix: Annotated[bool, flag()] = False
    refusal: Annotated[Any, Field(lambda value, reading: value)] = None
    annotations: Annotated[Any, Field(lambda value, reading: value)] = None

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> Message:
        """Says something, unless it calls tools or thinks."""
        silent = self.role == "assistant" and (self.tool_calls or self.thoughts is not None)
        if self.content is None and not silent:
            raise mistake("needed", name="content", what="a string")
        if self.tool_calls and self.role != "assistant":
            raise mistake("needed", name="tool_calls", what="left out, except in messages of the assistant")
        return self

    @property
    def thoughts(self) -> str | None:
        """What came before the answer, by whichever name the client has for it."""
        return next(
            (found for found in (self.reasoning_content, self.reasoning, self.thinking) if found is not None),
            None,
        )


class Function(Schema):
    """What the model is told of a function; `parameters` is a JSON schema of its arguments."""

    tolerant: ClassVar[bool] = True

    name: Annotated[str, text()]
    description: Annotated[str | None, text()] = None
    parameters: Annotated[dict[str, Any] | None, json_object()] = None
    strict: Annotated[bool | None, flag()] = None


class Tool(Schema):
    """A function that may be called."""

    tolerant: ClassVar[bool] = True
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    type: Annotated[str, one_of("function")] = "function"
    function: Function

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, handler: ModelWrapValidatorHandler[Tool]) -> Tool:
        made = handler(value)
        made._given = {"type": "function", **check_texts(value)}
        return made

    @property
    def given(self) -> dict[str, Any]:
        """The object as the client wrote it, for templates that show it to the model as it is."""
        return self._given
