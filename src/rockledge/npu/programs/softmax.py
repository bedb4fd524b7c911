"""Softmax over rows as one submit: row maximum, exp by table, sum, reciprocal by table, normalisation.

| step | programs | where |
| --- | --- | --- |
| row maximum | comparisons down to 32 columns, then 5 rotations | DPU; products with a maximum |
| x - maximum | 1 | a product that spreads -maximum, plus x |
| e^x | 2 for each 32,768 elements | DPU: table of e^(x / 2), then its square |
| sum | 1 | a product with ones |
| 1 / sum | 1 or 3 look-ups and their product, 2 of Newton | DPU |
| times e^x | 1 | a product that spreads 1 / sum, times e^x |

What published experience says of speed: alone, this loses to four A76 cores (ORK, GRN).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.programs.activations import exp_of
from rockledge.npu.programs.elementwise import Combine
from rockledge.npu.programs.operator import Builder, Operator, Tensor
from rockledge.npu.programs.row_steps import LANES, reciprocal, row_maximum, row_sum, spread

Halves = NDArray[np.float16]
LARGEST_COLUMNS: Final = 4096
LARGEST_SCORE: Final = 30000.0  # so that a difference of two fits fp16


def softmax(rows: int, columns: int) -> Operator:
    """Softmax over the columns of the input "x" fp16 [rows, columns], scores of at most 30,000.

    Of each result p, with d its score less the row's maximum: |error| <= p (1 / 128 + |d| / 2048) + 3e-7
    against float64. Any row is safe: the sum lies between 1 and `columns`, for which the reciprocal's tables
    are solved, and e^d below -16 counts as e^-16. Raises NpuError beyond 4,096 columns, and for more rows
    than the convolution buffer holds with so many columns (`float_banks`).
    """
    if not 1 <= columns <= LARGEST_COLUMNS:
        raise NpuError(
            f"a softmax has {columns} columns, expected 1 to {LARGEST_COLUMNS}; compute longer ones on the "
            "CPU"
        )
    builder = Builder("softmax", rows)
    x = builder.input("x", columns, LANES, fill=-LARGEST_SCORE)
    builder.check(_scores)
    return builder.finish(softmax_of(builder, x, columns), columns)


def softmax_of(builder: Builder, x: Tensor, columns: int) -> Tensor:
    """The steps; `x` has a multiple of 32 columns.

    Those from `columns` on are no larger than the others and count for nothing.
    """
    powers = powers_of(builder, x)
    total = row_sum(builder, powers, columns, 1.0)
    # Up to a power of two, so that few tables serve all sizes.
    scale = reciprocal(builder, total, 1.0, float(1 << (columns - 1).bit_length()))
    return spread(builder, scale, np.ones(columns, np.float16), Combine.MULTIPLY, powers)


def powers_of(builder: Builder, x: Tensor) -> Tensor:
    """e^(x - the row's largest), exactly 1 there; `x` has a multiple of 32 columns, which all count."""
    largest = row_maximum(builder, x)
    below = spread(builder, largest, np.full(x.columns, -1, np.float16), Combine.ADD, x)
    return exp_of(builder, below)


def _scores(arrays: Mapping[str, Halves]) -> None:
    x = arrays["x"]
    if not (np.abs(x.astype(np.float64)) <= LARGEST_SCORE).all():
        raise NpuError(
            f"a score of a softmax is beyond {LARGEST_SCORE:g} or no number, expected fp16 within it; scale "
            "the "
            "scores"
        )
