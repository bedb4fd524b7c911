"""`/v1/chat/completions`: messages in, one message out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rockledge.errors import UsageError
from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.delivery import reply_head
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.fields import Fields
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.logprobs import chat_logprobs
from rockledge.serve.options import MAX_TOP_LOGPROBS, Options, read_options
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.served_model import ServedModel

# Roles of the API and what chat templates call them ("developer" is the newer name of "system").
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

# Names under which a client sends back the thoughts before an answer; the chat template knows what to do.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")

# What messages carry for others: who spoke, what a client keeps for itself, hints to hosted caches.
UNUSED = ("name", "id", "cache_control", "refusal")


@dataclass(frozen=True)
class ChatRequest:
    """A valid request. `logprobs` is the number of alternatives per token, None when not requested; `switches`
    are variables of the chat template."""

    messages: list[dict[str, str]]
    logprobs: int | None
    options: Options
    switches: dict[str, Any]


def read_chat_request(body: object, defaults: Sampling = CONVERSATION, vocab: int = 1 << 31) -> ChatRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    fields = Fields(body)
    messages = _messages(fields)
    wanted = fields.flag("logprobs")
    top = fields.count("top_logprobs", 0, 0, MAX_TOP_LOGPROBS)
    if top and not wanted:
        raise fields.wrong("top_logprobs", "left out unless 'logprobs' is true")
    switches = fields.take("chat_template_kwargs")
    if switches is not None and not isinstance(switches, dict):
        raise fields.wrong("chat_template_kwargs", "an object")
    options = read_options(fields, defaults, vocab)
    if options.max_tokens == 0:
        raise fields.wrong("max_tokens", "at least 1")
    fields.finish()
    return ChatRequest(messages, top if wanted else None, options, switches or {})


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
    message = {"role": ROLES[role], "content": fields.valid_text("content", content)}
    for name in THOUGHTS:
        if (thoughts := fields.text(name)) is not None:
            message[name] = thoughts
    for name in UNUSED:
        fields.take(name)
    for name in ("tool_calls", "annotations"):
        if fields.take(name):
            raise fields.wrong(name, "left out: this server does not call tools")
    fields.finish()
    return message


def _text_part(fields: Fields) -> str:
    if fields.take("type") != "text":
        raise fields.wrong("type", "'text': this server reads text only")
    text = fields.text("text")
    if text is None:
        raise fields.wrong("text", "a string")
    fields.take("cache_control")
    fields.finish()
    return text


def chat_generation(model: ServedModel, request: ChatRequest, limits: Limits) -> Generation:
    """What the engine is to do for the rendered conversation.

    Raises:
        ApiError: no chat template, the template refuses the messages, or they do not fit in the context.
    """
    if model.chat is None:
        raise ApiError("this model has no chat template; use /v1/completions", code="no_chat_template")
    try:
        text = model.chat.render(request.messages, switches=request.switches)
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
