"""`/v1/chat/completions`: messages in, one message out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.conversation import template_messages
from rockledge.serve.delivery import reply_head
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.logprobs import chat_logprobs
from rockledge.serve.messages import Message
from rockledge.serve.options import MAX_TOP_LOGPROBS, GenerationBody, Options
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.schema import DEFAULT_READING, Reading, flag, json_object, read_body, whole, wrong
from rockledge.serve.served_model import ServedModel


class ChatBody(GenerationBody):
    """The body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], pydantic.Field(min_length=1)]
    logprobs: Annotated[bool, flag()] = False
    top_logprobs: Annotated[int, whole(0, MAX_TOP_LOGPROBS)] = 0
    chat_template_kwargs: Annotated[dict[str, Any], json_object()] = {}  # noqa: RUF012 (pydantic copies it)


@dataclass(frozen=True)
class ChatRequest:
    """A valid request. `logprobs` is the number of alternatives per token, None when not requested;
    `switches` are variables of the chat template."""

    messages: list[Message]
    logprobs: int | None
    options: Options
    switches: dict[str, Any]


def read_chat_request(
    body: object, defaults: Sampling = CONVERSATION, reading: Reading = DEFAULT_READING
) -> ChatRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(ChatBody, body, reading)
    if found.top_logprobs and not found.logprobs:
        raise wrong("top_logprobs", "left out unless 'logprobs' is true")
    options = found.options(defaults)
    if options.max_tokens == 0:
        raise wrong("max_tokens", "at least 1")
    return ChatRequest(
        messages=found.messages,
        logprobs=found.top_logprobs if found.logprobs else None,
        options=options,
        switches=found.chat_template_kwargs,
    )


def chat_generation(model: ServedModel, request: ChatRequest, limits: Limits) -> Generation:
    """What the engine is to do for the rendered conversation.

    Raises:
        ApiError: no chat template, the template refuses the messages, or they do not fit in the context.
    """
    if model.chat is None:
        raise ApiError("this model has no chat template; use /v1/completions", code="no_chat_template")
    try:
        text = model.chat.render(template_messages(request.messages), switches=request.switches)
    except UsageError as error:
        raise ApiError(str(error), param="messages") from None
    ids = model.encode(text, "messages", bos=False)
    if not ids:
        raise ApiError("the chat template makes an empty prompt of these messages", param="messages")
    if len(ids) >= model.context:
        raise context_length_exceeded(len(ids), model.context, "messages")
    most = answer_tokens(request.options.max_tokens, model.context - len(ids), limits)
    return Generation((tuple(ids),), (most,), request.options, request.logprobs)


class ChatReply:
    """Objects `chat.completion` and `chat.completion.chunk`."""

    def __init__(self, model: str, tokenizer: Tokenizer, request: ChatRequest) -> None:
        kind = "chat.completion.chunk" if request.options.stream else "chat.completion"
        self._head = reply_head("chatcmpl", kind, model)
        self._tokenizer = tokenizer
        self._logprobs = request.logprobs is not None
        self._choices = request.options.n

    def opening(self) -> list[dict[str, Any]]:
        """The chunks that name the speaker."""
        opened = {"role": "assistant", "content": ""}
        return [self._chunk(choice, opened, None, None) for choice in range(self._choices)]

    def chunk(self, part: Part) -> dict[str, Any]:
        """A piece of a message."""
        delta = {"content": part.text} if part.text else {}
        return self._chunk(part.choice, delta, self._scored(part), part.finish)

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, when usage was requested."""
        return {**self._head, "choices": [], "usage": usage.body()}

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """The messages in one object."""
        choices = [self._choice(join_choice(parts, choice)) for choice in range(self._choices)]
        return {**self._head, "choices": choices, "usage": usage.body()}

    def _choice(self, part: Part) -> dict[str, Any]:
        return {
            "index": part.choice,
            "message": {"role": "assistant", "content": part.text, "refusal": None},
            "logprobs": self._scored(part),
            "finish_reason": part.finish,
        }

    def _scored(self, part: Part) -> dict[str, Any] | None:
        return chat_logprobs(self._tokenizer, part.tokens) if self._logprobs else None

    def _chunk(
        self, choice: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        part = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "choices": [part]}
