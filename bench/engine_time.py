"""The time of a decode step by an engine that is not ours: the roofline of `board/time.py` with constants of
the engine's own, at most four.

    seconds = hypot(bytes / bandwidth, products) + further products
              + layers x seconds a layer x share + groups x seconds a group
    products = weights x seconds a weight

A bandwidth is that of an RK3588; another board's is as much smaller as its memory's theoretical rate. Reading
and multiplying overlap in part: a step takes longer than the slower of the two where they are alike, hence
the root of the sum of squares. What depends on the number of rows and threads:

- On a processor four rows are multiplied together and each of the others by itself, as ggml's repacked
  kernels do it. Codes come from memory once, for the first of them.
- What a layer does between its products is shared evenly by all threads, so it ends when the slowest has
  done its share: with eight threads that is an A55.
- The NPU takes so few rows in the time of one; the processor's work between its products is done for every
  row.
"""

from dataclasses import dataclass
from math import hypot
from typing import Final

from bench.published_decode import Run
from rockledge.board.boards import Board, find_board

CORES: Final = 4
"""Cortex-A76 of an RK3588 and of a Raspberry Pi 5: as many threads a constant's seconds are of."""
TILE_ROWS: Final = 4
TILE_PRODUCTS: Final = 2.5
"""Products of four rows beside those of one: 40 vector instructions instead of 16 for the sums and the
unpacking of a block of 4 x 32 weights in 4 bits (ggml_gemv_q4_0_4x4_q8_0 and ggml_gemm_q4_0_4x4_q8_0 of
ggml-org/llama.cpp ggml/src/ggml-cpu/arch/arm/repack.cpp)."""
REFERENCE: Final = find_board("rk3588-8gb-lpddr4x")
_BOARDS: Final = {"rk3588": REFERENCE, "rpi5": find_board("rpi5-8gb")}


@dataclass(frozen=True)
class Constants:
    """Of one engine: bytes/s, seconds a weight, a layer and a group of weights. `input_group_s` is never
    fitted: it stands in for `group_s` where nothing was seen of grouped formats."""

    bandwidth: float
    weight_s: float
    layer_s: float
    group_s: float
    input_group_s: float = 0.0

    def seconds(self, run: Run) -> float:
        """Of a step, modelled."""
        board = board_of(run)
        first, others = _products(run)
        each = run.weights * self.weight_s * _slower(run, board)
        return (
            hypot(run.bytes / (self.bandwidth * memory_share(run)), first * each)
            + others * each
            + run.layers * self.layer_s * layer_share(run)
            + groups(run) * self.group_s
            + run.input_groups * self.input_group_s
        )

    def tok_s(self, run: Run) -> float:
        """Of all rows together, modelled."""
        return run.rows / self.seconds(run)


def board_of(run: Run) -> Board:
    """Whose facts are known of it; an RK3588's where none are."""
    return _BOARDS.get(run.chip, REFERENCE)


def memory_share(run: Run) -> float:
    """Theoretical rate of the board's memory over that of an RK3588 with LPDDR4x."""
    return board_of(run).value("dram_theoretical") / REFERENCE.value("dram_theoretical")


def groups(run: Run) -> float:
    """Groups of weights that have a scale each, in the vendor's grouped formats."""
    return run.weights / run.group if run.group else 0.0


def layer_share(run: Run) -> float:
    """Time of what a layer does between its products beside that of four A76 for one row."""
    if not run.threads:
        return run.rows
    return thread_share(run.threads) * REFERENCE.value("cpu_hz") / board_of(run).value("cpu_hz")


def thread_share(threads: int) -> float:
    """Time until every thread has done its even share, beside four A76; beyond four there is an A55, which is
    as much slower as it reads memory (no other rate of both is published)."""
    slowest = 1.0
    if threads > CORES:
        slowest = REFERENCE.value("cpu_read_bandwidth_1_core") / REFERENCE.value(
            "little_read_bandwidth_1_core"
        )
    return CORES / threads * slowest


def _slower(run: Run, board: Board) -> float:
    """Time of products beside that of four A76 of an RK3588; little cores take too few to count."""
    if not run.threads:
        return 1.0
    return CORES / min(run.threads, CORES) * REFERENCE.value("cpu_hz") / board.value("cpu_hz")


def _products(run: Run) -> tuple[float, float]:
    """Times that every weight is multiplied, in those of one row: while it comes from memory, and after."""
    if not run.threads:
        return 1.0, 0.0
    tiles, single = divmod(run.rows, TILE_ROWS)
    times = [TILE_PRODUCTS] * tiles + [1.0] * single
    return times[0], sum(times[1:])
