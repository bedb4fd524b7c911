"""What fits on a board: one plan splits its RAM between system, weights, KV cache, arena and NPU buffers.

Behind `--fit BOARD`: the plan without weights says how many bytes are left for them. Everything is modelled.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from rockledge.board.boards import Board
from rockledge.board.tiles import STRIP, padded
from rockledge.errors import BudgetError

PAGE_TOKENS = 32
"""Tokens of a page of the KV cache."""
DECODE_ROWS = 32
"""Rows of the largest step that writes tokens while the NPU is busy with a prompt."""
CPU_STEP_ROWS = 256
"""Rows of the largest step where there is no NPU."""
LOGIT_ROWS = 32
"""Rows of a step from whose logits tokens are drawn, at most: there is memory for so many."""
SEQUENCES = 4
"""Sequences longer than a window for which the layers with that window have pages."""
TILE_ROWS = 8
"""Neighbouring rows of a sequence that attention does together (kTileRows)."""

# As native/kernels.hpp and native/step.hpp have them.
_MOST_CONTEXT = 1 << 30
_SPLIT = 512  # positions of an attention split
_BLOCK_STRIPS, _BLOCK_BYTES = 4, 256 << 10  # strips unpacked for one block, if they take no more than this
_PARTS_PER_THREAD = 4  # attention's partial sums that a thread keeps for each split
_DRAWING_BYTES = 8 + 4  # that a thread keeps for each logit of a row that it draws from
_THREAD_BYTES = (8 + 66 + 4) << 10  # a thread's tables, scores, and what fills its last page
_ALIGNMENT_BYTES = 8 << 10  # what fills the last lines and pages of everything else


class DecoderShape(Protocol):
    """The sizes of a decoder that memory depends on (any model config has them). All are element counts."""

    @property
    def hidden(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def vocab(self) -> int: ...
    @property
    def windows(self) -> tuple[int, ...]:
        """Positions that attention sees, by layer, 0 for all; empty where no layer has a window."""
        ...

    @property
    def headless(self) -> bool:
        """Whether there is no language head, and so nothing to draw from."""
        ...


@dataclass(frozen=True)
class MemoryPlan:
    """One board, one model, one context: bytes by use. `weights_bytes` is the budget (or the given weights);
    `npu_buffers_bytes` is what the NPU may use, never above its address window."""

    board: str
    context: int
    ram_bytes: int
    reserved_bytes: int
    kv_bytes: int
    arena_bytes: int
    npu_buffers_bytes: int
    weights_bytes: int
    basis: str = "modelled"


def padded_head(head_dim: int) -> int:
    """Bytes of the int8 codes of one head's key, value or query: whole tiles (native/rockledge.h)."""
    return padded(head_dim)


def pages_of(tokens: int) -> int:
    """Pages of the KV cache that hold `tokens`."""
    return -(-tokens // PAGE_TOKENS)


def window_pages(window: int, rows: int, page_tokens: int = PAGE_TOKENS) -> int:
    """Pages that a step of `rows` tokens sees through `window` at most, wherever they begin."""
    return -(-(window + rows - 2) // page_tokens) + 1


def pool_pages(window: int, context: int, rows: int, sequences: int = SEQUENCES) -> int:
    """Pages of a pool of the KV cache for `context` tokens in all, written in steps of up to `rows`: with a
    `window` (0: none) no more than `sequences` long ones need."""
    pages = pages_of(context)
    return min(pages, sequences * window_pages(window, rows)) if window else pages


def kv_bytes(shape: DecoderShape, tokens: int) -> int:
    """Bytes of keys and values of which a query after `tokens` reads all: int8 codes and one fp32 scale per
    token and head, in a layer with a window those inside it."""
    seen = sum(layers * min(window or tokens, tokens) for window, layers in _windows(shape).items())
    return seen * _entry_bytes(shape)


def cache_bytes(shape: DecoderShape, context: int, rows: int, sequences: int = SEQUENCES) -> int:
    """Bytes of the KV cache for `context` tokens, taken in whole pages; `rows` and `sequences` as for
    `pool_pages`."""
    pages = sum(
        layers * pool_pages(window, context, rows, sequences) for window, layers in _windows(shape).items()
    )
    return pages * PAGE_TOKENS * _entry_bytes(shape)


def _windows(shape: DecoderShape) -> Counter[int]:
    """How many layers have each window."""
    return Counter(shape.windows or (0,) * shape.layers)


def _entry_bytes(shape: DecoderShape) -> int:
    return shape.kv_heads * 2 * (padded_head(shape.head_dim) + 4)


def arena_bytes(shape: DecoderShape, rows: int, context: int, threads: int) -> int:
    """Bytes besides weights and cache of what runs steps of up to `rows` tokens, whatever its recipe:
    never fewer than it takes. At 256 rows or more it is at most a sixth more where every input has two planes
    and heads together are as wide as the residual (tests/runtime/test_forecast.py).

    A row has gate and up, or q, k and v; the residual; the widest input in two int8 planes; the queries; and
    as much again as all heads' outputs, for the terms of a score bias. A thread keeps the unpacked weights of
    a block, one row, and partial sums of attention, some of them for every 512 positions that a query sees
    (native/step.cpp). Layers with a window may have rotary angles of their own. The logits of rows from
    which tokens are drawn stay in the arena.
    """
    windows = _windows(shape)
    angles = shape.head_dim * min(2, len(windows))
    attention, queries = shape.heads * shape.head_dim, shape.heads * padded_head(shape.head_dim)
    widest = max(2 * shape.ffn, attention + 2 * shape.kv_heads * shape.head_dim, shape.hidden)
    inputs = padded(max(shape.hidden, attention, shape.ffn))
    row = 4 * (widest + shape.hidden + attention + angles) + 2 * inputs + queries + 4 * shape.heads + 16
    splits = -(-pages_of(context) * PAGE_TOKENS // _SPLIT)
    seen = max(min(splits, (window - 2 + _SPLIT) // _SPLIT + 1) if window else splits for window in windows)
    partial = 4 * (shape.heads // shape.kv_heads) * (padded_head(shape.head_dim) + 8)
    block = 2 * STRIP * inputs
    block = max(block, min(_BLOCK_STRIPS * block, _BLOCK_BYTES))
    partials = (2 * TILE_ROWS + _PARTS_PER_THREAD * seen) * partial
    thread = _THREAD_BYTES + block + 8 * rows + 4 * widest + partials
    logits = 0 if shape.headless else 4 * shape.vocab * min(rows, LOGIT_ROWS)
    thread += 0 if shape.headless else _DRAWING_BYTES * shape.vocab
    return logits + rows * row + threads * thread + 4 * angles * (_SPLIT + splits) + _ALIGNMENT_BYTES


def working_bytes(shape: DecoderShape, rows: int, context: int, threads: int, *, npu: bool = True) -> int:
    """Bytes of cache and arenas for `context` tokens: of the prefill program with steps of up to `rows`
    tokens, and of the second one that decodes while the first waits for the NPU. Without an `npu` there is
    one program, with steps of no more than `CPU_STEP_ROWS`."""
    steps = (rows, DECODE_ROWS) if npu else (min(rows, CPU_STEP_ROWS),)
    arenas = sum(arena_bytes(shape, each, context, threads) for each in steps)
    return cache_bytes(shape, context, steps[0]) + arenas


def largest_step(board: Board, rows: int) -> int:
    """Rows of the largest step on `board`, where the NPU could take `rows`."""
    return rows if board.has_npu else min(rows, CPU_STEP_ROWS)


def board_working_bytes(board: Board, shape: DecoderShape, rows: int, context: int) -> int:
    """`working_bytes` on `board`, with a thread for each of its cores that decode."""
    return working_bytes(shape, rows, context, int(board.value("cpu_cores")), npu=board.has_npu)


def _longest_context(board: Board, shape: DecoderShape, rows: int, room: int) -> int:
    """Tokens of the longest context whose cache and arenas take at most `room` bytes; 0 if there is none."""

    def needed(pages: int) -> int:
        return board_working_bytes(board, shape, rows, pages * PAGE_TOKENS)

    return bisect_right(range(1, pages_of(_MOST_CONTEXT) + 1), room, key=needed) * PAGE_TOKENS


def reserved_bytes(board: Board) -> int:
    """Bytes that no model gets: firmware, the system with what else runs on a gateway, and our process."""
    return int(sum(board.value(f) for f in ("firmware_reserve", "os_reserve", "process_reserve")))


def _npu_buffers(board: Board) -> tuple[int, int]:
    """Bytes that the NPU's buffers take at least and at most; none where there is no NPU."""
    if not board.has_npu:
        return 0, 0
    return int(board.value("npu_buffers_least")), int(board.value("npu_buffers_most"))


def longest_context(board: Board, shape: DecoderShape, weights_bytes: int, *, step_rows: int = 512) -> int:
    """Tokens of the longest context that `board` has room for beside the weights and the smallest NPU
    buffers; 0 if there is none. The model itself may have been made for fewer."""
    room = board.ram_bytes - reserved_bytes(board) - _npu_buffers(board)[0] - weights_bytes
    return _longest_context(board, shape, step_rows, room)


def plan_memory(
    board: Board, shape: DecoderShape, context: int, *, weights_bytes: int | None = None, step_rows: int = 512
) -> MemoryPlan:
    """Splits the board's RAM. With `weights_bytes` None the weights get all that is left beside the smallest
    NPU buffers; otherwise the NPU buffers grow into what the weights leave. `context` and `step_rows` in
    tokens. BudgetError says by how much it does not fit, and the longest context that would."""
    reserved = reserved_bytes(board)
    kv = cache_bytes(shape, context, largest_step(board, step_rows))
    arena = board_working_bytes(board, shape, step_rows, context) - kv
    least_npu, most_npu = _npu_buffers(board)
    left = board.ram_bytes - reserved - kv - arena - least_npu
    weights = left if weights_bytes is None else weights_bytes
    if left <= 0 or weights > left:
        room = left + kv + arena - (weights_bytes or 0)
        longest = _longest_context(board, shape, step_rows, room)
        advice = (
            f"the longest context that leaves room is {longest} tokens"
            if longest > 0
            else "take a smaller model, fewer bits or a board with more memory"
        )
        raise BudgetError(
            f"{max(weights, 0) / 1e9:.2f} GB of weights with a context of {context} tokens do not fit on "
            f"{board.name}, {(max(weights, 0) - left) / 1e9:.2f} GB are missing; {advice}"
        )
    npu = least_npu + min(left - weights, most_npu - least_npu)
    return MemoryPlan(
        board=board.name,
        context=context,
        ram_bytes=board.ram_bytes,
        reserved_bytes=reserved,
        kv_bytes=kv,
        arena_bytes=arena,
        npu_buffers_bytes=npu,
        weights_bytes=weights,
    )


def weight_budget(board: Board, shape: DecoderShape, context: int, *, step_rows: int = 512) -> int:
    """Bytes that all tensors of an artifact may take on `board` at `context` tokens. BudgetError if none."""
    return plan_memory(board, shape, context, step_rows=step_rows).weights_bytes
