"""What is timed, as plain numbers: pieces of work so small that many repeats fit into a minute.

Every probe says how much work it is, so that the constants follow from seconds alone (`constants.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from rockledge.board.facts_file import STREAMED, WIDTHS
from rockledge.board.tiles import stored_bytes

FEW_ROWS: Final = STREAMED
"""Rows of activations that multiply while the codes stream in."""
PROMPT_ROWS: Final = (16, 256)
"""Rows between which the rate of products and the unpacking before them are told apart."""
OPERATIONS: Final = ("norm", "quantise", "hadamard", "gate", "rope")
LARGE: Final = (8192, 2048)
SHAPES: Final = (LARGE, (4096, 512), (512, 1024))
"""(outputs, inputs) of linears between which is told apart what an operation costs, what each of its outputs
does, and what its weights do; at `SHAPE_BITS`, and from memory at `SHAPE_ROWS`."""
PROMPT_SHAPES: Final = ((1024, 2048), (4096, 512))
"""The same for prompts: as many weights, but not as many outputs."""
SHAPE_BITS: Final = 4
SHAPE_ROWS: Final = (1, 4)
ALIGNED: Final = 128
"""Bytes beyond its own that a linear may take so that its streams begin where they must."""
VOCABULARIES: Final = (4096, 49152)
HEADS, KV_HEADS, HEAD_DIMS = 16, 4, (64, 128)
HADAMARD: Final = 512

Operation = Literal["norm", "quantise", "hadamard", "gate", "rope"]


@dataclass(frozen=True)
class Linears:
    """`count` linears of `outputs` x `inputs` weights at `bits`, one after another, over `rows` of int8. From
    "memory": so many different ones that no cache holds them; from "cache": the same one again."""

    place: Literal["memory", "cache"]
    bits: int
    rows: int
    outputs: int
    inputs: int
    count: int
    threads: int

    @property
    def weights(self) -> int:
        """Weights that are multiplied with, counted once for all rows."""
        return self.count * self.outputs * self.inputs

    @property
    def bytes(self) -> int:
        """Bytes of codes, indices and scales that are read."""
        return self.count * stored_bytes(self.bits, self.outputs, self.inputs)


@dataclass(frozen=True)
class RowOperation:
    """`count` times what a layer does between its linears, for `rows` of `width` floats. "hadamard" is
    "quantise" after a Hadamard transform, "gate" quantises too; of "rope" the width is that of the queries,
    and keys and values are a quarter of it each."""

    kind: Operation
    rows: int
    width: int
    count: int
    threads: int

    @property
    def elements(self) -> int:
        """Floats that come in (of a gate: that come out)."""
        return self.count * self.rows * self.width


@dataclass(frozen=True)
class Attends:
    """`count` times attention of `rows` queries after `after` others, in `HEADS` heads of `head_dim`, four of
    which share keys and values."""

    rows: int
    after: int
    head_dim: int
    count: int
    threads: int

    @property
    def scores(self) -> int:
        """Pairs of a query and a position that it sees, in all heads."""
        return self.count * HEADS * (self.rows * self.after + self.rows * (self.rows + 1) // 2)


@dataclass(frozen=True)
class EngineStep:
    """What a step of decode costs besides the core's operations, with so many sequences, each of which draws
    from `vocab` logits."""

    sequences: int
    vocab: int


Probe = Linears | RowOperation | Attends | EngineStep


def probes(threads: int, weights_bytes: int) -> Iterator[Probe]:
    """All that is timed on a machine where `threads` run models; `weights_bytes`: of the memory that is
    streamed. Some are named twice."""
    for bits in WIDTHS:
        for rows in FEW_ROWS:
            yield from_memory(bits, rows, threads, weights_bytes)
        for rows in (1, 2):
            yield from_cache(bits, rows)
        for rows in PROMPT_ROWS:
            yield prompt(bits, rows, threads)
    for shape in SHAPES:
        for rows in SHAPE_ROWS:
            yield from_memory(SHAPE_BITS, rows, threads, weights_bytes, shape)
    yield prompt(SHAPE_BITS, PROMPT_ROWS[-1], threads, PROMPT_SHAPES[-1])
    for some in reading_threads(threads):
        yield from_memory(8, 1, some, weights_bytes)
    for kind in OPERATIONS:
        yield row_operation(kind, threads)
    for head_dim in HEAD_DIMS:
        yield decoding(head_dim, threads)
        yield reading(head_dim, threads)
    few, many = VOCABULARIES
    yield from (EngineStep(1, few), EngineStep(4, few), EngineStep(1, many))


def reading_threads(threads: int) -> tuple[int, ...]:
    """Threads whose bandwidth is measured: one, two, four and all, as far as there are so many."""
    return tuple(sorted({some for some in (1, 2, 4, threads) if some <= threads}))


def from_memory(
    bits: int, rows: int, threads: int, weights_bytes: int, shape: tuple[int, int] = LARGE
) -> Linears:
    """Linears of `shape` (outputs, inputs) from memory, as many as fit there."""
    each = stored_bytes(bits, *shape) + ALIGNED
    most = 4 * weights_bytes // stored_bytes(bits, *LARGE)  # of small ones more would take no less time
    return Linears("memory", bits, rows, *shape, max(1, min(weights_bytes // each, most)), threads)


def from_cache(bits: int, rows: int) -> Linears:
    """A linear that stays in one core's own cache."""
    return Linears("cache", bits, rows, 512, 512, 64, 1)


def prompt(bits: int, rows: int, threads: int, shape: tuple[int, int] = PROMPT_SHAPES[0]) -> Linears:
    """A linear of a prompt."""
    return Linears("cache", bits, rows, *shape, ceil(256 / rows), threads)


def row_operation(kind: Operation, threads: int) -> RowOperation:
    """What a layer does between its linears."""
    return RowOperation(kind, 128, HEADS * HEAD_DIMS[0] if kind == "rope" else 2048, 8, threads)


def decoding(head_dim: int, threads: int) -> Attends:
    """Attention of an answer."""
    return Attends(1, 255, head_dim, 32, threads)


def reading(head_dim: int, threads: int) -> Attends:
    """Attention of a prompt."""
    return Attends(256, 0, head_dim, 2, threads)
