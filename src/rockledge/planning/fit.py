"""What fits on a board: bytes by part for a model at a width, longest context, most streams, fewest bits."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.memory import (
    LOGIT_ROWS,
    board_working_bytes,
    cache_bytes,
    largest_step,
    longest_context,
    plan_memory,
    reserved_bytes,
)
from rockledge.errors import BudgetError
from rockledge.formats.bands import TABLES, Band, aligned, packed_bytes
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.steps import STEP_ROWS

WIDTHS: Final = (3, 4, 8)
"""The widths that a plan compares; all weights at one of them."""
NARROWEST: Final = 2
"""What `quantize` can go down to."""
_ROWS: Final = STEP_ROWS[-1]
_TABLE_BYTES: Final = 16
_OTHER_TABLES: Final = 2
"""Widths below 8 bits besides the narrowest: each has tables."""
_BAND_ENDS: Final = 16 * 2 * 64
"""What fills the last lines of both streams of a vocabulary in sixteen bands, at most."""


@dataclass(frozen=True)
class Room:
    """Bytes of a board by use, with so many bytes of weights. `free`: what is left, negative where it does
    not fit; the buffers of the NPU grow into it (`npu`: the least that they take)."""

    ram: int
    system: int
    process: int
    weights: int
    cache: int
    arena: int
    npu: int
    free: int

    @property
    def available(self) -> int:
        """What the board really has for a model: without firmware, system and our own process."""
        return self.ram - self.system - self.process

    @property
    def fits(self) -> bool:
        """Whether it all fits."""
        return self.free >= 0


def room(board: Board, config: ModelConfig, weights: int, tokens: int) -> Room:
    """What `weights` bytes leave with a cache of `tokens` in all."""
    process = int(board.value("process_reserve"))
    system = reserved_bytes(board) - process
    cache = cache_bytes(config, tokens, largest_step(board, _ROWS))
    arena = board_working_bytes(board, config, _ROWS, tokens) - cache
    npu = int(board.value("npu_buffers_least")) if board.has_npu else 0
    free = board.ram_bytes - system - process - weights - cache - arena - npu
    return Room(board.ram_bytes, system, process, weights, cache, arena, npu, free)


def fits(board: Board, config: ModelConfig, weights: int, tokens: int) -> bool:
    """Whether a cache of `tokens` in all fits beside the weights."""
    try:
        plan_memory(board, config, tokens, weights_bytes=weights)
    except BudgetError:
        return False
    return True


def longest(board: Board, config: ModelConfig, weights: int, streams: int = 1) -> int:
    """Tokens of the longest context that each of `streams` can have; 0 where nothing fits."""
    return min(longest_context(board, config, weights) // streams, config.context)


def most_streams(board: Board, config: ModelConfig, weights: int, context: int) -> int:
    """How many sequences of `context` tokens can be decoded at a time; 0 where there is no memory for one."""
    return min(longest_context(board, config, weights) // context, LOGIT_ROWS)


@lru_cache(maxsize=64)
def parameters(config: ModelConfig) -> int:
    """Numbers in the checkpoint."""
    return decoder(config).parameters


def bits_of(config: ModelConfig, weights: int) -> float:
    """Bits a weight of an artifact of that many bytes, as `--bits` counts them."""
    return 8 * weights / parameters(config)


@lru_cache(maxsize=64)
def least_bytes(config: ModelConfig) -> int:
    """Of an artifact that every way of `quantize` can make: all weights at `NARROWEST` with room for the
    tables of all widths and for where bands of a vocabulary end, the gains that no linear takes up, and the
    rotation (docs/formats.md)."""
    tree = decoder(config)
    kinds = Counter((one.rows, one.cols, one.bias) for _, one in tree.linears())
    tables = _OTHER_TABLES * TABLES * _TABLE_BYTES
    total = sum(
        count * (packed_bytes(rows, cols, [Band(0, rows, NARROWEST)], bias=bias) + tables)
        for (rows, cols, bias), count in kinds.items()
    )
    gains = sum(aligned(4 * norm.size) for _, norm in tree.kept_norms())
    odd = config.hidden // (config.hidden & -config.hidden)
    return total + gains + aligned(4 * config.hidden) + aligned(4 * odd * odd) + 2 * _BAND_ENDS


def least_bits(config: ModelConfig) -> float:
    """The fewest that `quantize` can make of a model, as they are written: hundredths."""
    return ceil(100 * bits_of(config, least_bytes(config))) / 100
