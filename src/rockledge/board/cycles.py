"""Cycles of the inner loops on a Cortex-A76, simulated: the computing side of the time formula.

`python -m bench.kernel_cycles` compiles native/neon.cpp with GCC 12 and runs llvm-mca (LLVM 19, its model of
the Neoverse N1, the A76's server twin) on the loop over tiles of 8 rows x 32 inputs (docs/formats.md). A loop
never counts for fewer cycles than a quarter of its instructions, because the A76 decodes four a cycle. Caches
are not in it. A figure measured on a board replaces these (`Board.measured`).

What binds: every weight below 8 bits takes a tbl and a sdot, 32 a tile on two vector pipes, so 16 cycles;
getting codes out of their bytes adds 4 cycles at 2 bits, 16 at 3 and 8 at 4. At 8 bits the loads bind.
"""

from rockledge.board.facts import Fact
from rockledge.board.tiles import TILE_WEIGHTS

TILE_CYCLES: dict[tuple[int, int], float] = {
    (2, 1): 20.0,
    (3, 1): 32.0,
    (4, 1): 24.0,
    (8, 1): 11.0,
    (2, 2): 28.0,
    (3, 2): 42.0,
    (4, 2): 32.0,
    (8, 2): 16.0,
}
"""Cycles of one tile by (bits, rows of int8 activations; two planes are two rows)."""
STREAMED_ROWS = 4
"""Rows of int8 activations that multiply while the codes stream in (kStreamed of native/neon.cpp). From the
second on each takes as much more as the second does."""
PREFILL_MACS_PER_CYCLE = 31.99
"""Products a cycle when an unpacked strip meets eight rows of activations; the two pipes can do 32."""

_SOURCE = "llvm-mca 19, neoverse-n1, on native/neon.cpp: bench/kernel_cycles.py"


def cycles_fact(bits: int, planes: int) -> str:
    """The name of the fact: cycles one core spends on one weight of width `bits` (2, 3, 4 or 8) for one token
    whose activations have `planes` (1 or 2) int8 planes."""
    return f"cpu_cycles_per_weight_{bits}_bits_{planes}_planes"


CYCLE_FACTS: dict[str, Fact] = {
    cycles_fact(bits, planes): Fact(cycles / TILE_WEIGHTS, "cycles/weight", _SOURCE, "derived")
    for (bits, planes), cycles in TILE_CYCLES.items()
} | {"cpu_prefill_macs_per_cycle": Fact(PREFILL_MACS_PER_CYCLE, "MAC/cycle/core", _SOURCE, "derived")}
