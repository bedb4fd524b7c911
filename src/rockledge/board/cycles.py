"""Cycles per weight of the decode kernel on a Cortex-A76, derived from its instruction counts.

One tile is 8 rows x 32 inputs = 16 row-groups of 16 weights (docs/formats.md). A row-group costs one load of
its table, one `ubfx` to find it, one `tbl` and one `sdot`; on top come the loads of the packed codes and the
vector operations that bring a code down to its own byte:

    b=4  8 code loads; per load one `and` (low nibbles) and one `ushr` (high nibbles)
    b=3  6 code loads; per row-group `ushr` the low bits (none for 1 row in 4), shift the high bit to bit 2
         (none for 1 row in 8), `bit` it in, `and` with 7
    b=2  4 code loads; per row-group `ushr` (3 rows in 4) and `and` (3 rows in 4)
    b=8  16 weight loads, nothing but `sdot`

plus per tile the activations (2 loads a plane), one load of 8 indices and about 3 instructions of loop. A
second activation plane adds one `sdot` a row-group. A tile takes at least as long as its busiest resource;
latency is hidden by 8 independent accumulators. Derived figures: llvm-mca on the real kernel replaces them.
"""

from dataclasses import dataclass

from rockledge.board.boards import Board

TILE_WEIGHTS = 8 * 32
_LOOP_INSTRUCTIONS = 3


@dataclass(frozen=True)
class TileCost:
    """Instructions of one 8 x 32 tile with one activation plane, by the resource they occupy.

    `shifts` are vector operations that only one of the vector pipes takes; `vector` counts all of them.
    """

    loads: int
    vector: int
    shifts: int
    scalar: int


TILE_COSTS: dict[int, TileCost] = {
    2: TileCost(loads=4 + 16 + 2 + 1, vector=32 + 12 + 12, shifts=12, scalar=16),
    3: TileCost(loads=6 + 16 + 2 + 1, vector=32 + 12 + 14 + 16 + 16, shifts=12 + 14, scalar=16),
    4: TileCost(loads=8 + 16 + 2 + 1, vector=32 + 8 + 8, shifts=8, scalar=16),
    8: TileCost(loads=16 + 2, vector=16, shifts=0, scalar=0),
}


def cycles_per_weight(bits: int, board: Board, planes: int = 1) -> float:
    """Modelled cycles one core spends on one weight of width `bits` (2, 3, 4 or 8) with `planes` (1 or 2)
    activation planes: the busiest of the vector pipes, the shift pipe, the load pipes and the decoder.
    """
    cost = TILE_COSTS[bits]
    loads = cost.loads + 2 * (planes - 1)
    vector = cost.vector + 16 * (planes - 1)
    instructions = loads + vector + cost.scalar + _LOOP_INSTRUCTIONS
    cycles = max(
        vector / board.value("cpu_vector_pipes"),
        cost.shifts / board.value("cpu_shift_pipes"),
        loads / board.value("cpu_load_pipes"),
        instructions / board.value("cpu_decode_width"),
    )
    return cycles / TILE_WEIGHTS
