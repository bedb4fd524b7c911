"""Options of a generation that all endpoints share: length, choices, sampling, stops, delivery."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from rockledge.runtime.constraints.constraint import Constraint
from rockledge.runtime.sampling import Sampling
from rockledge.serve.constraints import CONSTRAINT_FIELDS, read_constraint
from rockledge.serve.schema import (
    Field,
    Reading,
    Schema,
    expected,
    flag,
    number,
    text,
    valid_text,
    whole,
    wrong,
)

MAX_STOPS = 16
MAX_TOKENS = (1 << 31) - 1
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 128
MAX_BIASES = 1024
MAX_STOP_IDS = 128
MAX_DIGITS = 10
MOST_PRIORITY = 1 << 31
LEAST_PENALTY, MOST_PENALTY = 0.01, 100.0
UNLIMITED = -1
"""Of `max_tokens`: as many as the context holds (llama.cpp)."""
LEAST_TOP_P = 1e-6  # OpenAI allows 0, which keeps the most probable token only; so does this


@dataclass(frozen=True)
class Options:
    """The shared fields. `max_tokens` None means: until the context is full (chat) or 16 (completions), and
    `UNLIMITED` until the context is full. `priority`: lower goes first; `timeout_s` counts from arrival."""

    model: str | None
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    n: int
    best_of: int
    priority: int
    timeout_s: float | None
    constraint: Constraint | None = None


def _stops(value: Any, reading: Reading) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > MAX_STOPS:
        raise expected(f"a string or a list of at most {MAX_STOPS} strings")
    stops = tuple(valid_text(item) for item in values)
    if "" in stops:
        raise expected("made of strings that are not empty")
    return stops


def _logit_bias(value: Any, reading: Reading) -> tuple[tuple[int, float], ...]:
    ids = f"at most {MAX_BIASES} token ids (0 to {reading.vocab - 1})"
    mistake = expected(f"an object of {ids} with numbers from -100 to 100")
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise mistake
    found: dict[int, float] = {}
    for key, bias in value.items():
        plain = key.isascii() and key.isdigit() and len(key) <= MAX_DIGITS
        fits = isinstance(bias, (int, float)) and not isinstance(bias, bool) and -100 <= bias <= 100
        if not plain or int(key) >= reading.vocab or int(key) in found or not fits:
            raise mistake
        found[int(key)] = float(bias)
    return tuple((token, bias) for token, bias in sorted(found.items()) if bias)


def _stop_ids(value: Any, reading: Reading) -> tuple[int, ...]:
    known = isinstance(value, list) and len(value) <= MAX_STOP_IDS
    if not known or not all(is_id(item, reading.vocab) for item in value):
        raise expected(f"a list of at most {MAX_STOP_IDS} token ids (0 to {reading.vocab - 1})")
    return tuple(sorted(set(value)))


def is_id(value: object, vocab: int) -> bool:
    """Whether a JSON value is a token id below `vocab`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab


STOPS = Field(
    _stops,
    {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_STOPS},
        ]
    },
)
LOGIT_BIAS = Field(
    _logit_bias,
    {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
)
FORM = Field(lambda value, reading: value)  # read as a whole by constraints.py
STOP_IDS = Field(_stop_ids, {"type": "array", "items": {"type": "integer"}, "maxItems": MAX_STOP_IDS})


class StreamOptions(Schema):
    """What a stream carries besides the answer."""

    include_usage: Annotated[bool, flag()] = False
    continuous_usage_stats: Annotated[bool, flag()] = False
    include_obfuscation: Annotated[bool, flag()] = False


_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


class SamplingBody(Schema):
    """Fields that everything shares that generates text; those that an API does not have are called as in
    vLLM."""

    model: Annotated[str | None, text()] = None
    stream: Annotated[bool, flag()] = False
    timeout: Annotated[float, number(0.0)] = 0.0
    seed: Annotated[int | None, whole(-(1 << 63), (1 << 64) - 1)] = None
    temperature: Annotated[float, number(0.0, 2.0)] = 1.0
    top_k: Annotated[int, whole(0, MAX_TOKENS, -1)] = 0
    top_p: Annotated[float, number(0.0, 1.0)] = 1.0
    min_p: Annotated[float, number(0.0, 1.0)] = 0.0
    repetition_penalty: Annotated[float | None, number(LEAST_PENALTY, MOST_PENALTY)] = None
    repeat_penalty: Annotated[float, number(LEAST_PENALTY, MOST_PENALTY)] = 1.0
    presence_penalty: Annotated[float, number(-2.0, 2.0)] = 0.0
    frequency_penalty: Annotated[float, number(-2.0, 2.0)] = 0.0
    logit_bias: Annotated[tuple[tuple[int, float], ...], LOGIT_BIAS] = ()
    min_tokens: Annotated[int, whole(0, MAX_TOKENS)] = 0
    stop_token_ids: Annotated[tuple[int, ...], STOP_IDS] = ()
    ignore_eos: Annotated[bool, flag()] = False
    priority: Annotated[int, whole(-MOST_PRIORITY, MOST_PRIORITY)] = 0

    def one_answer(
        self,
        defaults: Sampling,
        max_tokens: int | None,
        stop: tuple[str, ...] = (),
        constraint: Constraint | None = None,
        *,
        must_call: bool = False,
    ) -> Options:
        """The options of one answer, of at most `max_tokens` (None and `UNLIMITED` as in `Options`). A call
        that has to be made is all of the answer, so `constraint`, the form of its text, does not count then.

        A request that names nothing of temperature, top_k, top_p and min_p gets those of `defaults`; one
        that names a part of them gets OpenAI's values for the rest.

        Raises:
            ApiError: it would have to be longer than it may be.
        """
        if max_tokens is not None and max_tokens != UNLIMITED and self.min_tokens > max_tokens:
            raise wrong("min_tokens", f"at most the {max_tokens} of the longest answer")
        return Options(
            model=self.model,
            max_tokens=max_tokens,
            sampling=self._sampling(defaults),
            stop=stop,
            ignore_eos=self.ignore_eos,
            stream=self.stream,
            include_usage=False,
            continuous_usage=False,
            n=1,
            best_of=1,
            priority=self.priority,
            timeout_s=self.timeout or None,
            constraint=None if must_call else constraint,
        )

    def _sampling(self, defaults: Sampling) -> Sampling:
        silent = self.model_fields_set.isdisjoint(_SAMPLING)
        named = Sampling(
            temperature=self.temperature,
            top_k=max(self.top_k, 0),
            top_p=max(self.top_p, LEAST_TOP_P),
            min_p=self.min_p,
        )
        # llama.cpp's name for the same; what only one of them says counts.
        repetition = self.repeat_penalty if self.repetition_penalty is None else self.repetition_penalty
        return replace(
            defaults if silent else named,
            seed=None if self.seed is None else self.seed % (1 << 64),
            repetition_penalty=repetition,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            min_tokens=self.min_tokens,
            stop_ids=self.stop_token_ids,
        )


class GenerationBody(SamplingBody):
    """Fields that chat and completions share."""

    max_tokens: Annotated[int | None, whole(0, MAX_TOKENS, UNLIMITED)] = None
    max_completion_tokens: Annotated[int | None, whole(0, MAX_TOKENS, UNLIMITED)] = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, whole(1, MAX_CHOICES)] = 1
    best_of: Annotated[int | None, whole(1, MAX_CHOICES)] = None
    stop: Annotated[tuple[str, ...], STOPS] = ()
    response_format: Annotated[Any, FORM] = None
    structured_outputs: Annotated[Any, FORM] = None
    json_schema: Annotated[Any, FORM] = None
    grammar: Annotated[Any, FORM] = None
    guided_json: Annotated[Any, FORM] = None
    guided_regex: Annotated[Any, FORM] = None
    guided_choice: Annotated[Any, FORM] = None
    guided_grammar: Annotated[Any, FORM] = None

    def options(self, defaults: Sampling) -> Options:
        """The same as the engine's side takes it; `defaults` as in `one_answer`.

        Raises:
            ApiError: fields that contradict each other.
        """
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        best_of = self.n if self.best_of is None else self.best_of
        usage = self.stream_options or StreamOptions()
        if self.stream_options is not None and not self.stream:
            raise wrong("stream_options", "left out unless 'stream' is true")
        if best_of < self.n:
            raise wrong("best_of", f"a whole number between {self.n} and {MAX_CHOICES}")
        if self.stream and best_of > self.n:
            raise wrong("best_of", "equal to 'n' in a stream, which cannot take parts back")
        constraint = read_constraint({name: getattr(self, name) for name in CONSTRAINT_FIELDS})
        return replace(
            self.one_answer(defaults, limit, self.stop, constraint),
            include_usage=usage.include_usage,
            continuous_usage=usage.include_usage and usage.continuous_usage_stats,
            n=self.n,
            best_of=best_of,
        )
