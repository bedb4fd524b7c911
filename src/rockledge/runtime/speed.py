"""How fast a loaded engine reads and writes, and how near that is to what memory allows.

Prompts are random tokens. Reading them ends with the logits of the last one; writing draws each token from
its logits and computes the next, without turning it into text. A long past is a short one repeated, which
costs the same. Every first run only warms up.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rockledge.errors import UsageError
from rockledge.runtime.engine import Engine
from rockledge.runtime.request import Request

PAST_READ = 32
"""Tokens of a context that prefill computes; the rest are copies of their keys and values."""

Advance = Callable[[int, int], None]  # runs done, runs in all


def _never(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True)
class Prefill:
    """`tok_s_runs`: prompt tokens a second, one value a run."""

    prompt_tokens: int
    tok_s_runs: tuple[float, ...]

    @property
    def tok_s(self) -> float:
        """The median run."""
        return statistics.median(self.tok_s_runs)


@dataclass(frozen=True)
class Decode:
    """`tok_s_runs`: tokens a second of all `sequences` together, one value a run, each run beginning with
    `past_tokens` in every sequence. `step_bytes`: weights and cache that a step in the middle of a run
    reads."""

    sequences: int
    past_tokens: int
    generated_tokens: int
    step_bytes: int
    tok_s_runs: tuple[float, ...]

    @property
    def tok_s(self) -> float:
        """The median run."""
        return statistics.median(self.tok_s_runs)

    @property
    def bytes_s(self) -> float:
        """Bytes of codes, indices, scales, keys and values read a second, at the median."""
        return self.step_bytes * self.tok_s / self.sequences


def cache_tokens(past: int, generated: int, sequences: int, page_tokens: int) -> int:
    """Tokens of cache that `sequences` of `past` + `generated` tokens take, in whole pages."""
    return sequences * -(-(past + generated) // page_tokens) * page_tokens


def measure_prefill(engine: Engine, tokens: int, repeat: int, advance: Advance = _never) -> Prefill:
    """Runs prefill of `repeat` random prompts of `tokens` tokens, one after the other; the engine must not
    find them again (`Engine.load(prefixes=False)`)."""
    speeds = []
    for number in range(repeat + 1):
        prompt = _prompt(engine, tokens, number)
        engine.submit(Request("measured", tuple(prompt), max_tokens=2, ignore_eos=True))
        start = time.perf_counter()
        while not engine.idle and engine.stats().decoding == 0:
            engine.step()
        seconds = time.perf_counter() - start
        engine.cancel("measured")
        if number:
            speeds.append(tokens / seconds)
        advance(number, repeat)
    return Prefill(tokens, tuple(speeds))


def measure_decode(
    engine: Engine, sequences: int, past: int, generated: int, repeat: int, advance: Advance = _never
) -> Decode:
    """Decodes `generated` tokens in each of `sequences` sequences, repeatedly after the same prompts."""
    speeds = []
    for number in range(repeat + 1):
        with answering(engine, sequences, past, generated + 1):
            steps = generated if number else min(2, generated)
            start = time.perf_counter()
            for _ in range(steps):
                engine.step()
            if number:
                speeds.append(sequences * generated / (time.perf_counter() - start))
        advance(number, repeat)
    held = sequences * engine.cache_bytes_read(past + generated // 2)
    return Decode(sequences, past, generated, engine.step_bytes + held, tuple(speeds))


@contextmanager
def answering(engine: Engine, sequences: int, past: int, tokens: int) -> Iterator[None]:
    """So many answers of up to `tokens` tokens are under way, each after `past` others, until the end of the
    block: every step of the engine writes one token in each."""
    names = [f"measured-{number}" for number in range(sequences)]
    # All in one step, so that nobody's answer is ahead.
    read = max(1, min(past, PAST_READ, engine.footprint.step_tokens // sequences))
    for number, name in enumerate(names):
        prompt = tuple(_prompt(engine, read, number))
        engine.submit(Request(name, prompt, max_tokens=tokens + 1, ignore_eos=True))
    try:
        while engine.stats().decoding < sequences:
            if engine.idle:
                raise UsageError(f"{sequences} sequences do not fit into the cache; give a larger context")
            engine.step()
        engine.lengthen(past)
        yield
    finally:
        for name in names:
            engine.cancel(name)
        engine.step()


def _prompt(engine: Engine, tokens: int, number: int) -> list[int]:
    numbers = random.Random(number)
    return [numbers.randrange(engine.config.vocab) for _ in range(tokens)]
