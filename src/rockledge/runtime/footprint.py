"""How large a context fits into a given memory: weights + arena + key/value pages."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from rockledge.board.memory import CPU_STEP_ROWS
from rockledge.errors import BudgetError, UsageError
from rockledge.units import show_size

DEFAULT_CONTEXT = 4096
STEP_TOKENS = (CPU_STEP_ROWS, 128, 64, 32)
"""Rows of the largest step, the preferred first; a smaller arena is the price of slower prefill."""
STREAMED_STEP_TOKENS = (1024, 512, *STEP_TOKENS)
"""The same where every step reads weights from the disk, which more rows then share."""
_MORE = 1 / 8  # that larger steps may add to what every step reads, by taking memory that weights could have


@dataclass(frozen=True)
class Demand:
    """What a model takes, in bytes: its weights once, arena and cache by rows of a step and by the pages of
    `page_tokens` tokens that hold the context (attention has a part for each group of pages, and a layer with
    a window caches what that and a step reach). `limit` is the option that bounds them all together, and
    `held` what the `weights` are called in a sentence about it. `streamed`: the weights are those without
    which no step runs, and so many bytes more stay in memory as far as there is room, or are read in every
    step."""

    weights: int
    arena: Callable[[int, int], int]
    cache: Callable[[int, int], int]
    page_tokens: int
    longest: int
    limit: str = "--memory"
    held: str = "the weights"
    streamed: int | None = None

    def total(self, step_tokens: int, context: int) -> int:
        """Bytes with steps of `step_tokens` rows and a cache for `context` tokens."""
        pages = self.pages(context)
        return self.weights + self.arena(step_tokens, pages) + self.cache(step_tokens, pages)

    def pages(self, context: int) -> int:
        """Pages that hold `context` tokens."""
        return -(-context // self.page_tokens)

    def longest_within(self, memory: int, step_tokens: int) -> int:
        """Tokens of the longest cache for which `memory` bytes are enough; 0 where there is none."""

        def needed(pages: int) -> int:
            return self.total(step_tokens, pages * self.page_tokens)

        return bisect_right(range(1, self.pages(self.longest) + 1), memory, key=needed) * self.page_tokens


@dataclass(frozen=True)
class Footprint:
    """The sizes chosen: tokens of context, rows of the largest step, bytes of all three parts together."""

    context: int
    step_tokens: int
    bytes: int


def whole_bytes(name: str, limit: float | None) -> int | None:
    """A limit of memory as a whole number: people write 3e9. UsageError where it is no number."""
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not isfinite(limit):
        raise UsageError(f"{name} is {limit!r}, expected a number of bytes, such as 3 << 30")
    return int(limit)


def choose_footprint(demand: Demand, context: int | None, memory: int | None) -> Footprint:
    """The requested context, or min(the model's, 4096, what fits); steps as large as memory allows.

    Raises UsageError for a context the model does not have, BudgetError naming what would fit.
    """
    if context is not None and not 1 <= context <= demand.longest:
        raise UsageError(f"the context is {context} tokens, expected 1 to {demand.longest} for this model")
    wanted = min(demand.longest, DEFAULT_CONTEXT) if context is None else context
    if memory is None:
        return Footprint(wanted, STEP_TOKENS[0], demand.total(STEP_TOKENS[0], wanted))
    for step_tokens in _steps(demand, wanted, memory):
        if demand.total(step_tokens, wanted) <= memory:
            return Footprint(wanted, step_tokens, demand.total(step_tokens, wanted))
    smallest = STEP_TOKENS[-1]
    allowed = f"{demand.limit} is {show_size(memory)}, expected at least"
    room = demand.longest_within(memory, smallest)
    if context is None and room > 0:
        return Footprint(room, smallest, demand.total(smallest, room))
    if room > 0:
        needed = show_size(demand.total(smallest, wanted), enough=True)
        raise BudgetError(
            f"{allowed} {needed} for a context of {wanted} tokens; use a context of at most {room} tokens, "
            "or more memory"
        )
    streaming = "" if demand.streamed is not None else ", stream the weights with --memory-budget"
    raise BudgetError(
        f"{allowed} {show_size(demand.total(smallest, 1), enough=True)} for {demand.held} "
        f"({show_size(demand.weights)}), the arena ({show_size(demand.arena(smallest, 1))}) and the smallest "
        f"cache; allow more{streaming}, or take a smaller model"
    )


def _steps(demand: Demand, context: int, memory: int) -> list[int]:
    """Rows of the largest step to try, the preferred first. Steps that read from the disk may be larger, as
    long as their arena does not drive out many weights more than that of the smallest steps does."""
    if demand.streamed is None:
        return list(STEP_TOKENS)
    read = {
        rows: max(0, demand.total(rows, context) + demand.streamed - memory) for rows in STREAMED_STEP_TOKENS
    }
    least = read[STREAMED_STEP_TOKENS[-1]]
    return [rows for rows, bytes_ in read.items() if bytes_ <= least * (1 + _MORE)]
