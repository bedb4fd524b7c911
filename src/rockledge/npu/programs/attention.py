"""Attention of one head over positions whose keys and values are laid out for the NPU, as one submit.

| step | programs | where |
| --- | --- | --- |
| scores = queries x keys | 1 | a product |
| masked scores less 30,000 | 1 for each 32,768 elements | DPU |
| e^(score - the row's largest) | as in `softmax.py` | DPU and products |
| times the mask | 1 for each 32,768 elements | DPU |
| their sum, at least 1 | 1 | a product with ones |
| 1 / sum | 1 or 3 look-ups and their product, 2 of Newton | DPU |
| powers x values, scaled | 1 | a product |
| times 1 / sum | 1 | a product that spreads it, times that |

The mask is used twice: masked scores must not be the largest, and e^-16, which the table gives for anything
below, must not be added up. Dividing comes last, so that tails of long rows are rounded beside the largest
weight and not beside 1 / positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.layout import padded
from rockledge.npu.lut import LARGEST_HALF
from rockledge.npu.programs.elementwise import Combine, FirstStage
from rockledge.npu.programs.operator import Builder, Operator
from rockledge.npu.programs.row_steps import LANES, reciprocal, row_sum, spread
from rockledge.npu.programs.softmax import LARGEST_COLUMNS, powers_of

Halves = NDArray[np.float16]
LARGEST_SCORE: Final = 15000.0
_MASKED: Final = 30000.0  # what a masked score loses: then it is below all others, and differences fit fp16


def causal_mask(rows: int, positions: int, start: int) -> Halves:
    """1 where a query sees a position, else 0; row r is the query of position `start` + r."""
    seen = np.arange(positions) <= start + np.arange(rows)[:, None]
    return seen.astype(np.float16)


def attention(rows: int, keys: Halves, values: Halves) -> Operator:
    """softmax(q x keys transposed) x values over seen positions, fp16 [rows, columns of `values`].

    `keys` fp16 [positions, head size] and `values` fp16 [positions, columns] are the operator's weights, laid
    out once. Inputs: "q" fp16 [rows, head size], already divided by the root of the head size, and "mask"
    fp16 [rows, positions] of 1 and 0 (`causal_mask`).

    Error against float64 of the same inputs, with s_j the exact scores of seen positions, d_j those less the
    largest, T = sum(e^d_j), p_j = e^d_j / T, o the exact result:

        delta = max(|s_j| / 2048 + |q| |k_j| / 2^16)     (|q| |k_j|: the sum of magnitudes)
        R_j = e^(2 delta) (1 + 1 / 256 + |d_j| / 1024) - 1
        |error| <= 1.1 sum((|v_j| + |o|) (p_j R_j + 3e-7 / T)) + |o| / 256 + 2^-24 t

    where t is 1, or what the sum of a column's |v_j| is above 65,504, as a power of two. Raises NpuError
    beyond 4,096 positions, for shapes that do not fit (`float_product_program`), for keys and values that are
    no numbers; and a run refuses queries whose scores may pass 15,000 (by norms), masks of other numbers, and
    rows that see no position.
    """
    check_cache(keys, values)
    positions, size = keys.shape
    builder = Builder("attention", rows)
    q = builder.input("q", size, LANES)
    mask = builder.input("mask", positions, LANES)
    builder.check(_scores(keys))
    builder.check(_mask(positions))
    scores = builder.product(q, widened(keys, mask.columns, q.columns))
    masked = builder.pair(Combine.ADD, mask, scores, FirstStage("subtract", 1.0, _MASKED))
    powers = builder.pair(Combine.MULTIPLY, powers_of(builder, masked), mask)
    # Padded rows see nothing; every other has a weight of exactly 1.
    total = row_sum(builder, powers, positions, 1.0, FirstStage("max", 1.0))
    scale = reciprocal(builder, total, 1.0, float(1 << (positions - 1).bit_length()))
    sums = np.abs(values.astype(np.float64)).sum(axis=0).max()
    shift = max(0, ceil(log2(max(1.0, 1.01 * float(sums)) / LARGEST_HALF)))
    columns = values.shape[1]
    first = FirstStage(multiplier=2.0**-shift) if shift else None
    result = builder.product(powers, widened(values.T, padded(columns, 16), mask.columns), first)
    result = spread(builder, scale, np.full(columns, 2.0**shift, np.float16), Combine.MULTIPLY, result)
    return builder.finish(result, columns)


def widened(weights: Halves, columns: int, inputs: int) -> Halves:
    """Weights with zeros up to [columns, inputs]."""
    wide = np.zeros((columns, inputs), np.float16)
    wide[: weights.shape[0], : weights.shape[1]] = weights
    return wide


def check_cache(keys: Halves, values: Halves) -> None:
    """Refuses keys and values that do not belong together, are too many, or no numbers."""
    named = {"keys": keys, "values": values}
    alike = keys.ndim == values.ndim == 2 and len(keys) == len(values) and keys.size and values.size
    if not alike or any(x.dtype != np.float16 for x in named.values()):
        found = ", ".join(f"{name} {x.dtype} {list(x.shape)}" for name, x in named.items())
        raise NpuError(f"attention has {found}, expected float16 with equally many positions")
    if len(keys) > LARGEST_COLUMNS:
        raise NpuError(
            f"attention has {len(keys)} positions, expected up to {LARGEST_COLUMNS}; leave it to the CPU"
        )
    for name, x in named.items():
        if not np.isfinite(x).all():
            raise NpuError(f"the {name} of attention hold an infinity or no number")


def _scores(keys: Halves) -> Callable[[Mapping[str, Halves]], None]:
    longest = float(np.sqrt((keys.astype(np.float64) ** 2).sum(axis=1)).max())

    def check(arrays: Mapping[str, Halves]) -> None:
        norms = np.sqrt((arrays["q"].astype(np.float64) ** 2).sum(axis=1))
        if not (norms * longest <= LARGEST_SCORE).all():
            row = int(np.argmin(norms * longest <= LARGEST_SCORE))
            raise NpuError(
                f"query {row} of attention has a norm of {norms[row]:g} beside keys of up to {longest:g}, "
                f"expected scores within {LARGEST_SCORE:g}; leave it to the CPU"
            )

    return check


def _mask(positions: int) -> Callable[[Mapping[str, Halves]], None]:
    def check(arrays: Mapping[str, Halves]) -> None:
        mask = arrays["mask"]
        if mask.shape[1] > positions or not ((mask == 0) | (mask == 1)).all() or not mask.any(axis=1).all():
            raise NpuError(
                f"a mask of attention has {mask.shape[1]} columns, numbers other than 0 and 1, or a row "
                f"without a 1, expected 0 and 1 for {positions} positions, of which every query sees one"
            )

    return check
