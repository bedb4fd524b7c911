"""The programs of one linear layer for every step size, over one packing of its weights.

Rows of a step differ from call to call, weights do not: how the inputs are cut into parts, which decides
where a weight lies, is the same for all steps.
"""

from collections.abc import Sequence
from typing import Final

from rockledge.board.npu_time import NpuRates
from rockledge.errors import NpuError
from rockledge.npu.programs.matmul import Matmul, compile_matmul
from rockledge.npu.programs.tile_search import DEFAULT_RATES, plan
from rockledge.npu.programs.tiling import Reuse, Sums, Tiling

STEP_ROWS: Final = (64, 128, 256, 512)


def step_rows(tokens: int) -> int:
    """The rows a chunk of `tokens` is padded to. Raises NpuError beyond the largest."""
    for rows in STEP_ROWS:
        if 1 <= tokens <= rows:
            return rows
    raise NpuError(f"a chunk has {tokens} tokens, expected 1 to {STEP_ROWS[-1]}; split it")


def step_matmuls(
    outputs: int,
    inputs: int,
    planes: int = 1,
    *,
    rates: NpuRates = DEFAULT_RATES,
    sizes: Sequence[int] = STEP_ROWS,
    stays: Reuse | None = None,
    sums: Sums | None = None,
) -> dict[int, Matmul]:
    """For each step size in tokens the matmul of a layer [outputs, inputs] with `planes` activation planes.

    `weight_bytes` of any of them serves all. Of the numbers of input parts that single steps would choose,
    the one with the least modelled seconds over all steps is taken. `stays` and `sums` as for `plan`.
    """

    def tiling(rows: int, parts: int | None = None) -> Tiling:
        return plan(rows * planes, outputs, inputs, rates=rates, parts=parts, stays=stays, sums=sums)

    counts = {len(tiling(rows).input_parts) for rows in sizes}
    choices = [[tiling(rows, count) for rows in sizes] for count in sorted(counts)]
    best = min(choices, key=lambda choice: sum(one.cost.seconds for one in choice))
    return dict(zip(sizes, map(compile_matmul, best), strict=True))
