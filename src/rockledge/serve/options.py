"""Options of a generation that both endpoints share: length, sampling, stops, delivery."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rockledge.runtime.sampling import Sampling
from rockledge.runtime.sampling_defaults import CONVERSATION
from rockledge.serve.fields import Fields

MAX_STOPS = 16
MAX_TOKENS = 1 << 31
MAX_TOP_LOGPROBS = 20
LEAST_TOP_P = 1e-6  # OpenAI allows 0, which keeps the most probable token only; so does this


@dataclass(frozen=True)
class Options:
    """The shared fields. `max_tokens` None means: until the context is full (chat) or 16 (completions)."""

    model: str | None
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    ignore_eos: bool
    stream: bool
    include_usage: bool


_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def read_options(fields: Fields, defaults: Sampling = CONVERSATION) -> Options:
    """Takes the shared fields; top_k, min_p and ignore_eos are extensions.

    A request that says nothing about sampling gets `defaults`; one that names a part of it gets OpenAI's
    values for the rest.
    """
    max_tokens = fields.integer("max_tokens", None, 0, MAX_TOKENS)
    max_tokens = fields.integer("max_completion_tokens", max_tokens, 0, MAX_TOKENS)
    seed = fields.integer("seed", None, -(1 << 63), (1 << 64) - 1)
    seed = None if seed is None else seed % (1 << 64)
    silent = not any(fields.has(name) for name in _SAMPLING)
    named = Sampling(
        temperature=fields.number("temperature", 1.0, 0.0, 2.0),
        top_k=max(fields.integer("top_k", 0, -1, MAX_TOKENS) or 0, 0),
        top_p=max(fields.number("top_p", 1.0, 0.0, 1.0), LEAST_TOP_P),
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        seed=seed,
    )
    stream = fields.flag("stream")
    return Options(
        model=fields.text("model"),
        max_tokens=max_tokens,
        sampling=replace(defaults, seed=seed) if silent else named,
        stop=_stops(fields),
        ignore_eos=fields.flag("ignore_eos"),
        stream=stream,
        include_usage=_include_usage(fields, stream),
    )


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


def _include_usage(fields: Fields, stream: bool) -> bool:
    value = fields.take("stream_options")
    if value is None:
        return False
    if not stream:
        raise fields.wrong("stream_options", "left out unless 'stream' is true")
    options = Fields(value, "stream_options")
    include = options.flag("include_usage")
    options.flag("include_obfuscation")
    options.finish()
    return include
