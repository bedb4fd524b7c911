"""Steps over the rows of a tensor: largest element, weighted sums, one number spread over the columns.

The chip has no unit that reduces over channels [H: GRN, ORK]; these use products with constant weights, which
are exact where a weight is 0 or a power of two and one input counts, and elementwise maxima.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu.lut import coarse, power_tables
from rockledge.npu.programs.elementwise import Combine, FirstStage
from rockledge.npu.programs.operator import Builder, Tensor

Halves = NDArray[np.float16]
LANES: Final = 32  # columns of a tensor that holds one number a row, in every column
_SURFACE: Final = 8


def row_maximum(builder: Builder, x: Tensor) -> Tensor:
    """The largest element of each row in all 32 columns; exact. `x` has a multiple of 32 columns.

    Halves of the columns are compared until 32 are left (the DPU alone), then these with themselves rotated
    by 16, 8, 4, 2 and 1 columns, each a product with a permutation and a maximum in one program.
    """
    while x.columns > LANES:
        half = max(LANES, -(-x.columns // _SURFACE // 2) * _SURFACE)
        x = builder.pair(Combine.MAX, x.part(0, half), x.part(x.columns - half, half))
    for step in (16, 8, 4, 2, 1):
        rotation = np.roll(np.eye(LANES, dtype=np.float16), step, axis=1)
        x = builder.product(x, rotation, fused=(Combine.MAX, x))
    return x


def row_sum(
    builder: Builder, x: Tensor, columns: int, weight: float, first: FirstStage | None = None
) -> Tensor:
    """The sum of the first `columns` columns times `weight` (an fp16) in all 32 columns, rounded once."""
    weights = np.zeros((LANES, x.columns), np.float16)
    weights[:, :columns] = weight
    return builder.product(x, weights, first)


def spread(
    builder: Builder,
    x: Tensor,
    factors: Halves,
    combine: Combine,
    operand: Tensor,
    first: FirstStage | None = None,
) -> Tensor:
    """first(x * factors[column]), combined with `operand`, [rows, columns]; x holds one number a row, in 32
    columns.

    `factors` [columns], or [parts, columns]: then the parts are added, for factors finer than one fp16.
    Columns beyond them are 0 before they are combined. One program, one rounding.
    """
    parts = np.atleast_2d(factors)
    weights = np.zeros((operand.columns, LANES), np.float16)
    weights[: parts.shape[1], : len(parts)] = parts.T
    return builder.product(x, weights, first, fused=(combine, operand))


def reciprocal(builder: Builder, x: Tensor, low: float, high: float) -> Tensor:
    """1 / x for low <= x <= high, tables, then Newton: relative error at most 1 / 512 up to an x of 16,384,
    beyond which 1 / x is below the normal numbers of fp16, at most 1 / 256.

    Inputs outside are clamped to the range; whoever calls this proves that they are inside.
    """
    guess, steps = _guess(builder, x, -1.0, low, high)
    for _ in range(steps):
        product = builder.pair(Combine.MULTIPLY, x, guess)
        # guess * (2 - x * guess)
        guess = builder.pair(Combine.MULTIPLY, product, guess, FirstStage("subtract", 2.0, -1.0))
    return guess


def reciprocal_root(builder: Builder, x: Tensor, low: float, high: float) -> Tensor:
    """1 / sqrt(x) for low <= x <= high, relative error at most 1 / 512: as `reciprocal`."""
    guess, steps = _guess(builder, x, -0.5, low, high)
    for _ in range(steps):
        product = builder.pair(Combine.MULTIPLY, x, guess)
        square = builder.pair(Combine.MULTIPLY, product, guess)
        # guess * (3 - x * guess^2) / 2
        guess = builder.pair(Combine.MULTIPLY, square, guess, FirstStage("subtract", 3.0, -0.5))
    return guess


def _guess(builder: Builder, x: Tensor, power: float, low: float, high: float) -> tuple[Tensor, int]:
    """x^power by tables, and how many steps of Newton bring it to fp16's own error."""
    tables = power_tables(power, low, high)
    found = [builder.look_up(table, x) for table in tables]
    guess = found[0] if len(found) == 1 else builder.pair(Combine.MULTIPLY, found[0], found[1])
    return guess, 2 if any(coarse(table) for table in tables) else 1
