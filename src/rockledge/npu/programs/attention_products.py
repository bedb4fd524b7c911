"""The two products of attention as register programs: queries by the keys of a split, weights by its values.

Both have one input part and row tiles of equal size, so that where a vector lies is a division. What a split
does not fill is multiplied too and counts nothing (`formats/npu_attention_spec.py`).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from rockledge.board.npu_time import NpuRates
from rockledge.errors import NpuError
from rockledge.formats.attention_spec import SPLIT
from rockledge.npu.programs.matmul import Matmul, compile_matmul
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT
from rockledge.npu.programs.tile_search import DEFAULT_RATES, ROW_UNIT, plan
from rockledge.npu.programs.tiling import Product, Reuse
from rockledge.npu.stream import Program

PLANES: Final = 2
"""Of the weights' codes, 7 bits each: two vectors for every query."""


@dataclass(frozen=True)
class TiledProduct:
    """A matmul of one kick on one core, whose row tiles all have `tile` rows."""

    matmul: Matmul
    tile: int

    @property
    def program(self) -> Program:
        """What a core runs."""
        (chain,) = self.matmul.launches[0].chains
        assert chain is not None
        return chain

    @property
    def vectors(self) -> int:
        """Rows that it multiplies."""
        return self.matmul.tiling.m

    def bytes(self, role: str) -> int:
        """What it needs of a buffer."""
        return self.matmul.launches[0].sizes[role]


@dataclass(frozen=True)
class AttentionProducts:
    """Of so many queries of heads of `head_inputs`, a multiple of 32: `scores` int32 [queries, 512] and
    `sums` int32 [2 queries, head_inputs]."""

    queries: int
    head_inputs: int
    scores: TiledProduct
    sums: TiledProduct


def attention_products(
    queries: int, head_inputs: int, *, rates: NpuRates = DEFAULT_RATES, chained: bool = True
) -> AttentionProducts:
    """The products of one core, whatever `rates` says of their number. `chained`: its programs run in one
    kick; where each is a kick, none may count on what another left in the buffer [H]. Raises NpuError for
    what no kick can do."""
    return _products(queries, head_inputs, replace(rates, cores=1), chained)


@lru_cache(maxsize=64)
def _products(queries: int, head_inputs: int, rates: NpuRates, chained: bool) -> AttentionProducts:
    return AttentionProducts(
        queries,
        head_inputs,
        _tiled(queries, SPLIT, head_inputs, rates, chained),
        _tiled(PLANES * queries, head_inputs, SPLIT, rates, chained),
    )


def _tiled(vectors: int, columns: int, inputs: int, rates: NpuRates, chained: bool) -> TiledProduct:
    stays = None if chained else Reuse.DATA
    padded = -(-vectors // ROW_UNIT) * ROW_UNIT
    while True:
        tiling = plan(padded, columns, inputs, rates=rates, parts=1, stays=stays)
        tiles = len(tiling.row_tiles)
        if padded % (tiles * ROW_UNIT) == 0:
            break
        padded = -(-padded // (tiles * ROW_UNIT)) * tiles * ROW_UNIT
    reused = any(isinstance(task, Product) and task.reuse is not Reuse.NONE for task in tiling.tasks())
    if len(tiling.kicks) != 1 or (reused and not chained):
        raise NpuError(
            f"a product of attention of {vectors} vectors x {columns} columns x {inputs} inputs takes "
            "several kicks, expected one; use smaller steps"
        )
    matmul = compile_matmul(tiling)
    sizes = matmul.launches[0].sizes
    assert sizes[INPUT] == padded * inputs
    assert sizes[WEIGHT] == columns * inputs
    assert sizes[OUTPUT] == 4 * padded * columns
    return TiledProduct(matmul, padded // tiles)
