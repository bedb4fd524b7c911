"""The time of attention of prompts on the NPU, in three forms: modelled, to compare with the CPU's.

Both products are the NPU's, a KV head's queries of `BLOCK_ROWS` positions at a time; what lies between them
is

    softmax on the CPU:   int8 products; int32 scores go to the CPU, weights of two 7-bit planes come back
    exp in the output:    fp16 products; the output conversion of Q x K makes exponentials, a column of ones
                          their sum, nobody looks for the largest (HAP, rknpu2_matmul_open docs/ATTENTION.md)
    softmax on the NPU:   int8 products; scores stay there, at the published time of its softmax

    seconds = max(NPU, bytes / bus, CPU) + what of NPU and CPU the first and last kick leave alone

Counted: scores from the first to the last position that a block sees; programs by
`npu_time.product_seconds`; a dispatch for every kick; keys and values laid out for the NPU once, when their
position is new; cache maintenance of all that is handed over; floats made of the sums of every part.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape
from rockledge.board.npu_syncs import Sync, sync_seconds
from rockledge.board.npu_time import SUM_BYTES, NpuRates, npu_rates, product_seconds
from rockledge.board.prefill import cpu_seconds

CPU_SOFTMAX: Final = "softmax on the CPU"
EXP_IN_OUTPUT: Final = "exp in the output"
NPU_SOFTMAX: Final = "softmax on the NPU"
FORMS: Final = (CPU_SOFTMAX, EXP_IN_OUTPUT, NPU_SOFTMAX)

BLOCK_ROWS: Final = 64
"""Positions whose queries meet keys together: with four heads a KV head 256 rows of a product."""
DATA_BANKS: Final = 8
"""For the weights of a part of the positions, next to a spare bank and three for values."""
UNIT: Final = 32
SCORE_BUFFER: Final = 16 << 20
"""Bytes of scores that a core's kick may leave behind."""


@dataclass(frozen=True)
class NpuAttention:
    """Seconds of one layer's attention: `npu` with its kicks, `bus` and `cpu` alone (all big cores, cache
    maintenance included), and what is left when they overlap; `scores` with those that are masked."""

    npu: float
    bus: float
    cpu: float
    seconds: float
    syncs: Sync
    scores: int


@dataclass(frozen=True)
class _Form:
    """Bytes of an operand's element, of a score as it is written, planes of weights, whose the softmax is."""

    element: int
    score: int
    planes: int
    softmax: str


_FORMS: Final = {
    CPU_SOFTMAX: _Form(1, SUM_BYTES, 2, "CPU"),
    EXP_IN_OUTPUT: _Form(2, 2, 1, ""),
    NPU_SOFTMAX: _Form(1, 2, 1, "NPU"),
}


def npu_attention(
    board: Board,
    shape: DecoderShape,
    rows: int,
    start: int,
    form: str,
    *,
    masked: bool = True,
    window: int = 0,
) -> NpuAttention:
    """`rows` positions after `start` others, in one of `FORMS`; `window`: the positions that attention sees,
    0 for all. Not `masked`: each sees all of the `start` positions and none of the others, which are counted
    among them."""
    way, rates = _FORMS[form], _rates(board, form)
    cores, group = rates.cores, shape.heads // shape.kv_heads
    blocks = list(_blocks(rows, start, masked, window))
    items = shape.kv_heads * len(blocks)
    scores = sums = 0
    program = moved = 0.0
    for queries, keys in blocks:
        vectors, part = group * queries, _part(board, group * queries * way.element, keys)
        found, found_sums = vectors * keys, way.planes * vectors * shape.head_dim * math.ceil(keys / part)
        operand = keys * shape.head_dim * way.element
        for planes, loaded, written in (
            (1, vectors * shape.head_dim * way.element, way.score * found),
            (way.planes, way.planes * found * way.element, SUM_BYTES * found_sums),
        ):
            stream = planes * operand + written
            macs = planes * found * shape.head_dim
            seconds = product_seconds(
                rates, cores, macs=macs, data_bytes=loaded, stream_bytes=stream, streamed=True
            )
            program += shape.kv_heads * seconds
            moved += shape.kv_heads * (loaded + stream + rates.program_bytes)
        scores += shape.kv_heads * found
        sums += shape.kv_heads * found_sums
    together = max(1, SCORE_BUFFER * len(blocks) * shape.kv_heads // max(1, way.score * scores))
    stages = max(1, math.ceil(items / cores / together))
    # Cores take whole items: the one with most of them is waited for.
    npu = program / items * math.ceil(items / cores) + 2 * stages * rates.dispatch_seconds
    laid_out = 2 * shape.kv_heads * shape.head_dim * rows
    cycles = laid_out * board.value("cpu_unpack_for_npu_cycles_per_weight_8_bits")
    cycles += sums * (board.value("cpu_epilogue_cycles") + board.value("cpu_epilogue_cycles_per_part"))
    handed = Sync(way.element * laid_out + SUM_BYTES * sums, 2 * items + 2)
    crossed = (1 + way.element) * laid_out + SUM_BYTES * sums
    if way.softmax == "CPU":
        cycles += scores * board.value("cpu_attention_cycles_per_score")
        between = (way.score + way.planes) * scores
        handed += Sync(between, 2 * items)
        crossed += between
    if way.softmax == "NPU":
        npu += scores * board.value("npu_softmax_seconds")
    cpu = cpu_seconds(board, cycles, 0.0) + sync_seconds(board, handed, board.value("cpu_cores"))
    bus = (moved + crossed) / rates.bus_bandwidth
    return NpuAttention(npu, bus, cpu, max(npu, bus, cpu) + (npu + cpu) / (stages + 1), handed, scores)


def npu_kv_bytes(shape: DecoderShape, tokens: int, form: str) -> int:
    """Bytes of keys and values of `tokens` positions of all layers in the NPU's layout, beside the cache."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens * _FORMS[form].element


def _rates(board: Board, form: str) -> NpuRates:
    """Rates of the form's products."""
    if _FORMS[form].element > 1:
        wide = {"npu_int8_macs_per_cycle": board.value("npu_wide_macs_per_cycle")}
        board = board.measured(wide, "products of fp16")
    return npu_rates(board)


def _blocks(rows: int, start: int, masked: bool, window: int) -> Iterator[tuple[int, int]]:
    """For each block its positions and the keys that they meet, in whole groups of 32."""
    for first in range(0, rows, BLOCK_ROWS):
        queries = min(BLOCK_ROWS, rows - first)
        end = start + first + queries if masked else start
        begin = max(0, start + first + 1 - window) if window and masked else 0
        yield queries, math.ceil(end / UNIT) * UNIT - begin // UNIT * UNIT


def _part(board: Board, position_bytes: int, keys: int) -> int:
    """Positions of a part whose weights, `position_bytes` each, fit their banks."""
    banks = DATA_BANKS * int(board.value("npu_cbuf_bank_bytes"))
    return min(keys, max(UNIT, banks // position_bytes // UNIT * UNIT))
