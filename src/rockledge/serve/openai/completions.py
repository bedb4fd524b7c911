"""`/v1/completions`: prompts as text or token ids in, continuations and log-likelihoods out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.delivery import reply_head
from rockledge.serve.errors import ApiError, context_length_exceeded
from rockledge.serve.fill_in_the_middle import Filling
from rockledge.serve.generation import Generation
from rockledge.serve.limits import Limits, answer_tokens
from rockledge.serve.logprobs import CompletionLogprobs
from rockledge.serve.options import MAX_TOP_LOGPROBS, GenerationBody, Options
from rockledge.serve.parts import Part, Usage, join_choice
from rockledge.serve.residency.room import require_repeatable
from rockledge.serve.schema import DEFAULT_READING, Reading, flag, read_body, text, whole, wrong
from rockledge.serve.served_model import ServedModel
from rockledge.serve.texts_or_ids import MOST_TEXTS, TextOrIds, texts_or_ids

DEFAULT_MAX_TOKENS = 16


class CompletionBody(GenerationBody):
    """The body of `/v1/completions`."""

    prompt: Annotated[tuple[TextOrIds, ...], texts_or_ids("prompts")]
    suffix: Annotated[str, text()] = ""
    echo: Annotated[bool, flag()] = False
    logprobs: Annotated[int | None, whole(0, MAX_TOP_LOGPROBS)] = None


@dataclass(frozen=True)
class CompletionRequest:
    """A valid request. `suffix`: what stands after the answer, "" for a continuation. `logprobs` is the
    number of alternatives per token, None when not requested."""

    prompts: tuple[TextOrIds, ...]
    max_tokens: int
    echo: bool
    logprobs: int | None
    options: Options
    suffix: str = ""


def read_completion_request(
    body: object, defaults: Sampling = CONVERSATION, reading: Reading = DEFAULT_READING
) -> CompletionRequest:
    """Checks every field of the body; `defaults` is the sampling of one that names none.

    Raises:
        ApiError: 400 that names the field.
    """
    found = read_body(CompletionBody, body, reading)
    options = found.options(defaults)
    if found.suffix and found.echo:
        raise wrong("echo", "false with 'suffix': a prompt with a suffix is no text that could be repeated")
    if len(found.prompt) * options.best_of > MOST_TEXTS:
        raise wrong("n", f"such that there are at most {MOST_TEXTS} answers in all")
    return CompletionRequest(
        prompts=found.prompt,
        max_tokens=DEFAULT_MAX_TOKENS if options.max_tokens is None else options.max_tokens,
        echo=found.echo,
        logprobs=found.logprobs,
        options=options,
        suffix=found.suffix,
    )


def completion_generation(model: ServedModel, request: CompletionRequest, limits: Limits) -> Generation:
    """What the engine is to do for every prompt (text gets the model's BOS where it has one; ids are taken
    as they are).

    Raises:
        ApiError: an id outside of the vocabulary, an empty prompt, one that does not fit in the context, or a
            suffix for a model that has no tokens for it.
    """
    if request.suffix and len(request.prompts) > 1:
        model.require_short(request.suffix, "suffix")
        tokens = len(model.tokenizer.encode_within(request.suffix, plain=not model.control_tokens))
        require_repeatable(tokens, len(request.prompts), "suffix")
    prompts = tuple(
        _prompt_ids(model, prompt, request.suffix, bool(request.max_tokens)) for prompt in request.prompts
    )
    most = tuple(
        answer_tokens(request.max_tokens, model.context - len(prompt), limits) if request.max_tokens else 0
        for prompt in prompts
    )
    options = request.options
    if request.suffix:
        options = ended_by(model.require_fills("suffix"), options)
    return Generation(prompts, most, options, request.logprobs, request.echo)


def ended_by(filling: Filling, options: Options) -> Options:
    """The options with what ends an answer in the middle, unless it is not to end by itself."""
    if options.ignore_eos:
        return options
    ends = (*options.sampling.stop_ids, *filling.ends)
    return replace(options, sampling=replace(options.sampling, stop_ids=ends))


def _prompt_ids(model: ServedModel, prompt: TextOrIds, suffix: str, continued: bool) -> tuple[int, ...]:
    if suffix:
        ids = _filling_ids(model, prompt, suffix)
    else:
        ids = tuple(model.encode(prompt, "prompt", bos=True)) if isinstance(prompt, str) else prompt
    if not ids and model.bos is not None:
        ids = (model.bos,)
    if not ids:
        raise ApiError(
            "the prompt is empty, and this model has no BOS token; give at least one token", param="prompt"
        )
    wrong = next((i for i in ids if not 0 <= i < model.vocab), None)
    if wrong is not None:
        raise ApiError(f"token id {wrong} is not in the vocabulary (0 to {model.vocab - 1})", param="prompt")
    if len(ids) > model.context - continued:
        raise context_length_exceeded(len(ids), model.context, "prompt")
    return ids


def _filling_ids(model: ServedModel, prompt: TextOrIds, suffix: str) -> tuple[int, ...]:
    filling = model.require_fills("suffix")
    model.require_short(suffix, "suffix")
    if isinstance(prompt, str):
        model.require_short(prompt, "prompt")
    return filling.prompt(prompt, suffix, control_tokens=model.control_tokens)


class CompletionReply:
    """Objects `text_completion`, streamed or not."""

    def __init__(self, model: ServedModel, request: CompletionRequest) -> None:
        self._include_usage = request.options.include_usage
        self._head = reply_head("cmpl", "text_completion", request.options.model or model.name)
        self._choices = len(request.prompts) * request.options.n
        self._scored = (
            None
            if request.logprobs is None
            else [CompletionLogprobs(model.tokenizer, request.echo) for _ in range(self._choices)]
        )

    def opening(self) -> list[dict[str, Any]]:
        """Nothing: text comes at once."""
        return []

    def chunks(self, part: Part) -> list[dict[str, Any]]:
        """A piece of one choice."""
        if not (part.text or part.tokens or part.finish):
            return []
        return [{**self._head, "choices": [self._choice(part)]}]

    def closing(self, usage: Usage) -> list[dict[str, Any]]:
        """The last chunk, when usage was requested."""
        return [{**self._head, "choices": [], "usage": usage.body()}] if self._include_usage else []

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
