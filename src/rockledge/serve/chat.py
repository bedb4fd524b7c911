"""`/v1/chat/completions`: messages in, one message out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.delivery import reply_head
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.fields import Fields
from rockledge.serve.generation import generate
from rockledge.serve.line import Cancelled
from rockledge.serve.logprobs import chat_logprobs
from rockledge.serve.options import MAX_TOP_LOGPROBS, Options, read_options
from rockledge.serve.parts import Part, Usage, join_choice

# Roles of the API and what chat templates call them ("developer" is the newer name of "system").
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class ChatRequest:
    """A valid request. `logprobs` is the number of alternatives per token, None when not requested."""

    messages: list[dict[str, str]]
    logprobs: int | None
    options: Options


def read_chat_request(body: object, defaults: Sampling = CONVERSATION) -> ChatRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    fields = Fields(body)
    messages = _messages(fields)
    wanted = fields.flag("logprobs")
    top = fields.integer("top_logprobs", None, 0, MAX_TOP_LOGPROBS)
    if top is not None and not wanted:
        raise fields.wrong("top_logprobs", "left out unless 'logprobs' is true")
    options = read_options(fields, defaults)
    if options.max_tokens == 0:
        raise fields.wrong("max_tokens", "at least 1")
    fields.finish()
    return ChatRequest(messages, (top or 0) if wanted else None, options)


def _messages(fields: Fields) -> list[dict[str, str]]:
    value = fields.take("messages")
    if not isinstance(value, list) or not value:
        raise fields.wrong("messages", "a list of at least one message")
    return [_message(Fields(item, f"messages[{i}]")) for i, item in enumerate(value)]


def _message(fields: Fields) -> dict[str, str]:
    role = fields.text("role")
    if role not in ROLES:
        raise fields.wrong("role", "one of " + ", ".join(ROLES))
    content = fields.take("content")
    if isinstance(content, list):
        content = "".join(_text_part(Fields(item, "messages.content")) for item in content)
    text = fields.valid_text("content", content)
    fields.text("name")
    fields.take("refusal")
    for name in ("tool_calls", "annotations"):
        if fields.take(name):
            raise fields.wrong(name, "left out: this server does not call tools")
    fields.finish()
    return {"role": ROLES[role], "content": text}


def _text_part(fields: Fields) -> str:
    if fields.take("type") != "text":
        raise fields.wrong("type", "'text': this server reads text only")
    text = fields.text("text")
    if text is None:
        raise fields.wrong("text", "a string")
    fields.finish()
    return text


def chat_prompt(engine: Engine, request: ChatRequest) -> list[int]:
    """The token ids of the rendered conversation.

    Raises:
        ApiError: no chat template, the template refuses the messages, or they do not fit in the context.
    """
    if engine.chat is None:
        raise ApiError("this model has no chat template; use /v1/completions", code="no_chat_template")
    try:
        text = engine.chat.render(request.messages)
    except UsageError as error:
        raise ApiError(str(error), param="messages") from None
    ids = engine.tokenizer.encode(text, bos=False)
    if len(ids) >= engine.context:
        raise context_length_exceeded(len(ids), engine.context - 1, "messages")
    return ids


def chat_parts(
    engine: Engine, request: ChatRequest, prompt: list[int], cancelled: Cancelled
) -> Iterator[Part]:
    """Generates the answer; runs in the line's thread."""
    options = request.options
    return generate(engine, 0, prompt, options.max_tokens, request.logprobs, options, cancelled)


class ChatReply:
    """Objects `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, model: str, tokenizer: Tokenizer, logprobs: bool, stream: bool) -> None:
        kind = "chat.completion.chunk" if stream else "chat.completion"
        self._head = reply_head("chatcmpl", kind, model)
        self._tokenizer = tokenizer
        self._logprobs = logprobs

    def opening(self) -> list[dict[str, Any]]:
        """The chunk that names the speaker."""
        return [self._chunk({"role": "assistant", "content": ""}, None, None)]

    def chunk(self, part: Part) -> dict[str, Any]:
        """A piece of the message."""
        return self._chunk({"content": part.text} if part.text else {}, self._scored(part), part.finish)

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, when usage was requested."""
        return {**self._head, "choices": [], "usage": usage.body()}

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The message in one object."""
        part = join_choice(parts, 0)
        message = {"role": "assistant", "content": part.text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._scored(part),
            "finish_reason": part.finish,
        }
        return {**self._head, "choices": [choice], "usage": usage.body()}

    def _scored(self, part: Part) -> dict[str, Any] | None:
        return chat_logprobs(self._tokenizer, part.tokens) if self._logprobs else None

    def _chunk(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "choices": [choice]}
