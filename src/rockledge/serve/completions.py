"""`/v1/completions`: prompts as text or token ids in, continuations and log-likelihoods out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rockledge.model.tokenizer import Tokenizer
from rockledge.runtime.engine import Engine
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.delivery import reply_head
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.fields import Fields
from rockledge.serve.generation import echo, generate
from rockledge.serve.line import Cancelled
from rockledge.serve.logprobs import CompletionLogprobs
from rockledge.serve.options import MAX_TOP_LOGPROBS, Options, read_options
from rockledge.serve.parts import Part, Usage, join_choice

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 2048


@dataclass(frozen=True)
class CompletionRequest:
    """A valid request. `logprobs` is the number of alternatives per token, None when not requested."""

    prompts: tuple[str | tuple[int, ...], ...]
    max_tokens: int
    echo: bool
    logprobs: int | None
    options: Options


def read_completion_request(body: object, defaults: Sampling = CONVERSATION) -> CompletionRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    fields = Fields(body)
    prompts = _prompts(fields)
    options = read_options(fields, defaults)
    request = CompletionRequest(
        prompts=prompts,
        max_tokens=DEFAULT_MAX_TOKENS if options.max_tokens is None else options.max_tokens,
        echo=fields.flag("echo"),
        logprobs=fields.integer("logprobs", None, 0, MAX_TOP_LOGPROBS),
        options=options,
    )
    fields.finish()
    return request


def _prompts(fields: Fields) -> tuple[str | tuple[int, ...], ...]:
    value = fields.take("prompt")
    if isinstance(value, str):
        return (fields.valid_text("prompt", value),)
    if isinstance(value, list) and len(value) > 0:
        if _is_ids(value):
            return (tuple(value),)
        if len(value) > MAX_PROMPTS:
            raise fields.wrong("prompt", f"at most {MAX_PROMPTS} prompts")
        if all(isinstance(item, str) for item in value):
            return tuple(fields.valid_text("prompt", item) for item in value)
        if all(isinstance(item, list) and item and _is_ids(item) for item in value):
            return tuple(tuple(item) for item in value)
    raise fields.wrong("prompt", "a string, a list of strings, a list of token ids, or a list of such lists")


def _is_ids(value: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def completion_prompts(engine: Engine, request: CompletionRequest) -> list[list[int]]:
    """The token ids of every prompt (text gets the model's BOS where it has one; ids are taken as they are).

    Raises:
        ApiError: an id outside of the vocabulary, an empty prompt, or one that does not fit in the context.
    """
    room = engine.context - (1 if request.max_tokens else 0)
    prompts = []
    for prompt in request.prompts:
        ids = engine.tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else list(prompt)
        if not ids and engine.config.bos is not None:
            ids = [engine.config.bos]
        if not ids:
            raise ApiError(
                "the prompt is empty, and this model has no BOS token; give at least one token",
                param="prompt",
            )
        wrong = next((i for i in ids if not 0 <= i < engine.config.vocab), None)
        if wrong is not None:
            raise ApiError(
                f"token id {wrong} is not in the vocabulary (0 to {engine.config.vocab - 1})", param="prompt"
            )
        if len(ids) > room:
            raise context_length_exceeded(len(ids), room, "prompt")
        prompts.append(ids)
    return prompts


def completion_parts(
    engine: Engine, request: CompletionRequest, prompts: list[list[int]], cancelled: Cancelled
) -> Iterator[Part]:
    """Answers the prompts one after another; runs in the line's thread."""
    for choice, prompt in enumerate(prompts):
        if request.echo:
            finish = None if request.max_tokens else "length"
            yield echo(engine, choice, prompt, request.logprobs, finish)
        elif not request.max_tokens:
            yield Part(choice, "", (), 0, "length")
        if request.max_tokens:
            yield from generate(
                engine, choice, prompt, request.max_tokens, request.logprobs, request.options, cancelled
            )
        if cancelled():
            return


class CompletionReply:
    """Objects `text_completion`, streamed or not."""

    def __init__(self, model: str, tokenizer: Tokenizer, request: CompletionRequest) -> None:
        self._head = reply_head("cmpl", "text_completion", model)
        self._choices = len(request.prompts)
        self._scored = (
            None
            if request.logprobs is None
            else [CompletionLogprobs(tokenizer, request.echo) for _ in request.prompts]
        )

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: text comes at once."""
        return []

    def chunk(self, part: Part) -> dict[str, Any]:
        """A piece of one choice."""
        return {**self._head, "choices": [self._choice(part)]}

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The last chunk, when usage was requested."""
        return {**self._head, "choices": [], "usage": usage.body()}

    def whole(self, parts: list[Part], usage: Usage) -> dict[str, Any]:
        """All choices in one object."""
        choices = [self._choice(join_choice(parts, choice)) for choice in range(self._choices)]
        return {**self._head, "choices": choices, "usage": usage.body()}

    def _choice(self, part: Part) -> dict[str, Any]:
        return {
            "index": part.choice,
            "text": part.text,
            "logprobs": self._scored[part.choice].body(part.tokens) if self._scored else None,
            "finish_reason": part.finish,
        }
