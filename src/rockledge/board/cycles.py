"""Cycles per weight of the decode kernel on a Cortex-A76, derived from the instructions of its loops.

One tile is 8 rows x 32 inputs = 16 row-groups of 16 weights (docs/formats.md). With one row of int8
activations a strip's tiles are multiplied as they are decoded; with two planes they are unpacked first and
multiplied twice from the cache. The counts below are those of native/neon.cpp as GCC 12 compiles it, taken by
bench/kernel_cycles.py; a tile takes at least as long as its busiest resource. That is a lower bound (eight
accumulators hide latency, but caches and branches are not in it); a measured figure replaces it.
"""

from dataclasses import dataclass

from rockledge.board.boards import Board

TILE_WEIGHTS = 8 * 32


@dataclass(frozen=True)
class TileCost:
    """Instructions of one tile by the resource they occupy: loads, stores and prefetches; operations of the
    vector pipes; those of them that only one pipe takes (shifts); and all that must be decoded."""

    moves: int
    vector: int
    shifts: int
    instructions: int


STRIP_LOOPS: dict[int, TileCost] = {
    2: TileCost(moves=34, vector=60, shifts=12, instructions=114),
    3: TileCost(moves=47, vector=108, shifts=26, instructions=172),
    4: TileCost(moves=45, vector=51, shifts=8, instructions=113),
    8: TileCost(moves=23, vector=16, shifts=0, instructions=43),
}
"""Decode and multiply, by width."""

UNPACK_LOOPS: dict[int, TileCost] = {
    2: TileCost(moves=68, vector=44, shifts=12, instructions=134),
    3: TileCost(moves=84, vector=90, shifts=26, instructions=196),
    4: TileCost(moves=68, vector=32, shifts=8, instructions=122),
    8: TileCost(moves=36, vector=0, shifts=0, instructions=41),
}
"""Decode into a buffer, by width."""

DOT_LOOP = TileCost(moves=18, vector=16, shifts=0, instructions=39)
"""Multiply a tile of int8 weights from the buffer."""


def tile_cycles(cost: TileCost, board: Board) -> float:
    """Modelled cycles of one tile on one core: the busiest of memory, vector and shift pipes and decoder."""
    return max(
        cost.moves / board.value("cpu_load_pipes"),
        cost.vector / board.value("cpu_vector_pipes"),
        cost.shifts / board.value("cpu_shift_pipes"),
        cost.instructions / board.value("cpu_decode_width"),
    )


def cycles_per_weight(bits: int, board: Board, planes: int = 1) -> float:
    """Modelled cycles one core spends on one weight of width `bits` (2, 3, 4 or 8) for one token whose
    activations have `planes` (1 or 2) int8 planes."""
    if planes == 1:
        return tile_cycles(STRIP_LOOPS[bits], board) / TILE_WEIGHTS
    cycles = tile_cycles(UNPACK_LOOPS[bits], board) + planes * tile_cycles(DOT_LOOP, board)
    return cycles / TILE_WEIGHTS
