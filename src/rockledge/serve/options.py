"""Options of a generation that both endpoints share: length, choices, sampling, stops, delivery."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rockledge.runtime.constraint import Constraint
from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.constraints import CONSTRAINT_FIELDS, read_constraint
from rockledge.serve.fields import Fields

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


_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def read_options(fields: Fields, defaults: Sampling = CONVERSATION, vocab: int = 1 << 31) -> Options:
    """Takes the shared fields; those that OpenAI does not have are called as in vLLM.

    A request that names nothing of temperature, top_k, top_p and min_p gets those of `defaults`; one that
    names a part of them gets OpenAI's values for the rest. Token ids are below `vocab`.
    """
    max_tokens = fields.integer("max_tokens", None, -1, MAX_TOKENS)
    max_tokens = fields.integer("max_completion_tokens", max_tokens, -1, MAX_TOKENS)
    stream = fields.flag("stream")
    include_usage, continuous_usage = _stream_options(fields, stream)
    n = fields.count("n", 1, 1, MAX_CHOICES)
    best_of = fields.count("best_of", n, n, MAX_CHOICES)
    if stream and best_of > n:
        raise fields.wrong("best_of", "equal to 'n' in a stream, which cannot take parts back")
    timeout_s = fields.number("timeout", 0.0, 0.0) or None
    sampling = _sampling(fields, defaults, vocab)
    if max_tokens not in (None, UNLIMITED) and sampling.min_tokens > max_tokens:
        raise fields.wrong("min_tokens", f"at most the {max_tokens} of the longest answer")
    return Options(
        model=fields.text("model"),
        max_tokens=max_tokens,
        sampling=sampling,
        stop=_stops(fields),
        ignore_eos=fields.flag("ignore_eos"),
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        n=n,
        best_of=best_of,
        priority=fields.count("priority", 0, -MOST_PRIORITY, MOST_PRIORITY),
        timeout_s=timeout_s,
        constraint=read_constraint({name: fields.take(name) for name in CONSTRAINT_FIELDS}),
    )


def _sampling(fields: Fields, defaults: Sampling, vocab: int) -> Sampling:
    seed = fields.integer("seed", None, -(1 << 63), (1 << 64) - 1)
    silent = not any(fields.has(name) for name in _SAMPLING)
    named = Sampling(
        temperature=fields.number("temperature", 1.0, 0.0, 2.0),
        top_k=max(fields.count("top_k", 0, -1, MAX_TOKENS), 0),
        top_p=max(fields.number("top_p", 1.0, 0.0, 1.0), LEAST_TOP_P),
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
    )
    # llama.cpp's name for the same; what only one of them says counts.
    repeat = fields.number("repeat_penalty", 1.0, LEAST_PENALTY, MOST_PENALTY)
    return replace(
        defaults if silent else named,
        seed=None if seed is None else seed % (1 << 64),
        repetition_penalty=fields.number("repetition_penalty", repeat, LEAST_PENALTY, MOST_PENALTY),
        presence_penalty=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
        logit_bias=_logit_bias(fields, vocab),
        min_tokens=fields.count("min_tokens", 0, 0, MAX_TOKENS),
        stop_ids=_stop_ids(fields, vocab),
    )


def _logit_bias(fields: Fields, vocab: int) -> tuple[tuple[int, float], ...]:
    value = fields.take("logit_bias")
    expected = f"an object of at most {MAX_BIASES} token ids (0 to {vocab - 1}) with numbers from -100 to 100"
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise fields.wrong("logit_bias", expected)
    found: dict[int, float] = {}
    for key, bias in value.items():
        plain = key.isascii() and key.isdigit() and len(key) <= MAX_DIGITS
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool) and -100 <= bias <= 100
        if not plain or int(key) >= vocab or int(key) in found or not number:
            raise fields.wrong("logit_bias", expected)
        found[int(key)] = float(bias)
    return tuple((token, bias) for token, bias in sorted(found.items()) if bias)


def _stop_ids(fields: Fields, vocab: int) -> tuple[int, ...]:
    value = fields.take("stop_token_ids")
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > MAX_STOP_IDS
        or not all(is_id(item, vocab) for item in value)
    ):
        raise fields.wrong("stop_token_ids", f"a list of at most {MAX_STOP_IDS} token ids (0 to {vocab - 1})")
    return tuple(sorted(set(value)))


def is_id(value: object, vocab: int) -> bool:
    """Whether a JSON value is a token id below `vocab`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > MAX_STOPS:
        raise fields.wrong("stop", f"a string or a list of at most {MAX_STOPS} strings")
    stops = tuple(fields.valid_text("stop", item) for item in values)
    if "" in stops:
        raise fields.wrong("stop", "made of strings that are not empty")
    return stops


def _stream_options(fields: Fields, stream: bool) -> tuple[bool, bool]:
    """Whether a last chunk has the usage, and whether every one has."""
    value = fields.take("stream_options")
    if value is None:
        return False, False
    if not stream:
        raise fields.wrong("stream_options", "left out unless 'stream' is true")
    options = Fields(value, "stream_options")
    include = options.flag("include_usage")
    continuous = options.flag("continuous_usage_stats")
    options.flag("include_obfuscation")
    options.finish()
    return include, include and continuous
