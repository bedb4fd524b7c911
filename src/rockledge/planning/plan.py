"""A plan: one model on one board for a context and a number of streams. Every figure is modelled.

The model is taken at the budget that `quantize` takes by default; where that does not fit, at the most bits
that do. Speeds are those of all weights at one width, the nearest below.
"""

from dataclasses import dataclass
from functools import cached_property
from math import floor
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.memory import LOGIT_ROWS, weight_budget
from rockledge.errors import BudgetError, UsageError
from rockledge.model.config import ModelConfig
from rockledge.planning.fit import (
    NARROWEST,
    WIDTHS,
    Room,
    bits_of,
    fits,
    least_bits,
    longest,
    most_streams,
    parameters,
    room,
)
from rockledge.planning.ranges import Range, fact_range
from rockledge.planning.speed import Speed
from rockledge.runtime.offload.prompt_time import weight_bytes

DEFAULT_BITS: Final = 4.25
"""Of `quantize`."""
DEFAULT_CONTEXT: Final = 8192
PROMPTS: Final = (64, 128, 256, 512, 1024, 2048, 4096)
"""Lengths for which the use of the NPU is told, where the context has them."""
PROMPT_TOKENS: Final = 1000
"""Of the prompt whose first token is timed, where the context has as many."""
CACHED_TOKENS: Final = 900
"""Of these, what an earlier request left in the cache."""


@dataclass(frozen=True)
class Precision:
    """All weights at `bits`: the artifact's bytes and bits a weight, whether it fits at the context and
    streams of the plan, and what would (0 for none). Speeds are None where it does not fit, and decode where
    the model writes nothing."""

    bits: int
    weights: int
    bits_per_weight: float
    fits: bool
    longest_context: int
    most_streams: int
    decode: Range | None
    prefill: Range | None


class Plan:
    """`name`: of the model. Raises UsageError for a context that the model was not made for, and for
    more streams than a step serves."""

    def __init__(self, name: str, config: ModelConfig, board: Board, context: int, streams: int) -> None:
        if context > config.context:
            raise UsageError(
                f"{name} was made for a context of {config.context} tokens, {context} are more; give a "
                "smaller --context"
            )
        if streams > LOGIT_ROWS:
            raise UsageError(f"{streams} streams, expected at most the {LOGIT_ROWS} that a step can serve")
        self.name, self.config, self.board = name, config, board
        self.context, self.streams = context, streams
        self.tokens = context * streams
        self.default_bytes = int(max(DEFAULT_BITS, least_bits(config)) * parameters(config) / 8)
        self.fits = fits(board, config, self.default_bytes, self.tokens)

    @cached_property
    def budget(self) -> float | None:
        """Bits a weight to quantise to: the default, or the most that fit; None where none do."""
        if self.fits:
            return bits_of(self.config, self.default_bytes)
        try:
            most = bits_of(self.config, weight_budget(self.board, self.config, self.tokens))
        except BudgetError:
            return None
        rounded = floor(most * 100) / 100
        return rounded if rounded >= least_bits(self.config) else None

    @cached_property
    def room(self) -> Room:
        """Bytes by part at that budget; where nothing fits, at the default."""
        bits = DEFAULT_BITS if self.budget is None else self.budget
        return room(self.board, self.config, int(bits * parameters(self.config) / 8), self.tokens)

    @cached_property
    def width(self) -> int:
        """The width whose speeds stand for the budget's: the widest whose codes are within it, and that fits
        by itself."""
        if self.budget is None:
            return int(DEFAULT_BITS)
        within = [width for width in (NARROWEST, *WIDTHS) if width <= self.budget]
        fitting = [
            w for w in within if fits(self.board, self.config, weight_bytes(self.config, w), self.tokens)
        ]
        return max(fitting, default=NARROWEST)

    @cached_property
    def speed(self) -> Speed:
        """At that width, beside an artifact of that budget."""
        weights = max(self.room.weights, weight_bytes(self.config, self.width))
        lengths = (self.prompt_tokens, self.prompt_tokens - self.cached_tokens)
        return Speed(self.board, self.config, self.width, self.tokens, weights, lengths)

    @cached_property
    def precisions(self) -> tuple[Precision, ...]:
        """Every width that a plan compares, narrow ones first."""
        return tuple(self._precision(bits) for bits in WIDTHS)

    def _precision(self, bits: int) -> Precision:
        board, config = self.board, self.config
        weights = weight_bytes(config, bits)
        fitting = fits(board, config, weights, self.tokens)
        other = Speed(board, config, bits, self.tokens, lengths=(self.prompt_tokens,))
        speed = self.speed if bits == self.width else other
        return Precision(
            bits=bits,
            weights=weights,
            bits_per_weight=bits_of(config, weights),
            fits=fitting,
            longest_context=longest(board, config, weights, self.streams),
            most_streams=most_streams(board, config, weights, self.context),
            decode=speed.decode(self.context, self.streams) if fitting and self.writes else None,
            prefill=speed.prefill(self.prompt_tokens) if fitting else None,
        )

    @property
    def writes(self) -> bool:
        """Whether there is a language head; a model without one makes embeddings of prompts."""
        return not self.config.headless

    @property
    def prompt_tokens(self) -> int:
        """Of the prompt whose speed and first token are told."""
        return min(PROMPT_TOKENS, self.context)

    @property
    def cached_tokens(self) -> int:
        """Of that prompt, what is cached in the second case."""
        return self.prompt_tokens * CACHED_TOKENS // PROMPT_TOKENS

    def utilisation(self) -> dict[int, float]:
        """How much of the NPU prompts of several lengths use, by their tokens."""
        return {tokens: self.speed.npu_utilisation(tokens) for tokens in PROMPTS if tokens <= self.context}

    def energy(self) -> dict[str, Range]:
        """Joules a token of "decode" (one stream, after the context) and of "prefill", at published power;
        empty where none is published."""
        if "cpu_decode_watts" not in self.board.facts:
            return {}
        prefill = self.speed.prefill(self.prompt_tokens)
        on_npu = self.speed.prompt(self.prompt_tokens).npu_macs > 0
        at_work = fact_range(self.board, "npu_decode_watts" if on_npu else "cpu_decode_watts")
        energy = {"prefill": _over_speed(at_work, prefill)}
        if self.writes:
            cpu = fact_range(self.board, "cpu_decode_watts")
            energy["decode"] = _over_speed(cpu, self.speed.decode(self.context))
        return energy

    @property
    def power_basis(self) -> str:
        """What the published watts are of."""
        return self.board.facts["cpu_decode_watts"].unit


def _over_speed(watts: Range, speed: Range) -> Range:
    return Range(watts.low / speed.high, watts.likely / speed.likely, watts.high / speed.low)
