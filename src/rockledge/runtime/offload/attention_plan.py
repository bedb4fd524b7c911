"""The plan of attention on the NPU: programs for every step size, and buffers. Numbers only, no device.

Every lane has its own rows of a step; keys and values of a split are the same for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape, padded_head
from rockledge.npu.programs.attention_products import AttentionProducts, TiledProduct, attention_products
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT
from rockledge.runtime.offload.plan import Place, PlannedBuffer
from rockledge.runtime.offload.shapes import lane_rates
from rockledge.runtime.offload.slots import pages

LEAST_ROWS: Final = 64
"""Fewest rows of a sequence that go there: they share two kicks and the laying out of every split, which take
as long as some 50 rows of an 8B on four A76 cores (`npu_submit_seconds`; `python -m bench.kernel_cycles`)."""
_PARTIAL_EXTRA: Final = 8  # floats of a partial beside its values (native/kernels.hpp)
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class AttentionSize:
    """Programs for steps of up to `step_rows` tokens, of which a lane has `rows`. `score_programs` (two sets)
    and `sum_programs` are the buffers for the words of each lane's program."""

    step_rows: int
    rows: int
    products: AttentionProducts
    score_programs: tuple[tuple[int, ...], tuple[int, ...]]
    sum_programs: tuple[int, ...]


@dataclass(frozen=True)
class AttentionPlan:
    """Rows at positions from `start` on go to the NPU. Places are those of each lane; `scores` has two sets,
    and on one address space all lanes have the same `keys` and `values`. `host_bytes`: what the core takes
    beside the buffers."""

    start: int
    lanes: int
    group: int
    sizes: tuple[AttentionSize, ...]
    queries: tuple[Place, ...]
    keys: tuple[Place, ...]
    scores: tuple[tuple[Place, ...], tuple[Place, ...]]
    weights: tuple[Place, ...]
    values: tuple[Place, ...]
    sums: tuple[Place, ...]
    buffers: tuple[PlannedBuffer, ...]
    host_bytes: int

    @property
    def bytes(self) -> int:
        """Memory of all buffers, and what the core takes."""
        return sum(buffer.bytes for buffer in self.buffers) + self.host_bytes


def plan_attention(
    shape: DecoderShape, start: int, *, lanes: int, spaces: int, steps: Sequence[int], board: Board
) -> AttentionPlan:
    """The plan for a device of `lanes` cores in one address space or one for each, with steps of up to so
    many tokens, ascending. Raises NpuError for heads that no program takes."""
    group, inputs = shape.heads // shape.kv_heads, padded_head(shape.head_dim)
    buffers: list[PlannedBuffer] = []

    def own(lane: int, size: int) -> int:
        buffers.append(PlannedBuffer(lane if spaces > 1 else 0, pages(size)))
        return len(buffers) - 1

    def each(product: TiledProduct, role: str) -> tuple[Place, ...]:
        return tuple(Place(own(lane, product.bytes(role)), 0) for lane in range(lanes))

    def shared(product: TiledProduct) -> tuple[Place, ...]:
        if spaces > 1:
            return each(product, WEIGHT)
        return (Place(own(0, product.bytes(WEIGHT)), 0),) * lanes

    def words(product: TiledProduct) -> tuple[int, ...]:
        return tuple(own(lane, product.program.size_bytes) for lane in range(lanes))

    rates = lane_rates(board, lanes)
    sizes: list[AttentionSize] = []
    for step in steps:
        rows = -(-step // lanes)
        products = attention_products(rows * group, inputs, rates=rates, chained=spaces == 1)
        scores = words(products.scores), words(products.scores)
        sizes.append(AttentionSize(step, rows, products, scores, words(products.sums)))
    largest = sizes[-1].products
    # A smaller size may pad more than a larger one.
    most_scores = max((size.products.scores for size in sizes), key=lambda one: one.vectors)
    most_sums = max((size.products.sums for size in sizes), key=lambda one: one.vectors)
    partial = group * (inputs + _PARTIAL_EXTRA) * _FLOAT_BYTES
    return AttentionPlan(
        start=start,
        lanes=lanes,
        group=group,
        sizes=tuple(sizes),
        queries=each(most_scores, INPUT),
        keys=shared(largest.scores),
        scores=(each(most_scores, OUTPUT), each(most_scores, OUTPUT)),
        weights=each(most_sums, INPUT),
        values=shared(largest.sums),
        sums=each(most_sums, OUTPUT),
        buffers=tuple(buffers),
        host_bytes=2 * steps[-1] * partial,
    )
