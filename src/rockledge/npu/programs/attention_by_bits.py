"""Attention of one head in two programs: exp in the conversion of the scores, the denominator from a column.

| step | programs | where |
| --- | --- | --- |
| bits of e^(score - shift), masked | 1 | a product with a minimum |
| those x values, and x a column of ones | 1 | a product |
| division | | CPU, fp32 |

As HAP does it, with one shift for a whole submit and no row maximum, but the mask is the operand of a minimum
in place of a product: 0, or the bits of 65,024. So no weight is an infinity, and a row that needed one has a
sum that shows it. What published experience does not tell is the quality; `attention.py` is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.layout import padded
from rockledge.npu.programs.attention import check_cache, widened
from rockledge.npu.programs.elementwise import Combine, ExponentBits, FirstStage
from rockledge.npu.programs.operator import Builder, Operator
from rockledge.npu.programs.row_steps import LANES

Halves = NDArray[np.float16]
_LARGEST_BITS: Final = 31728.0  # an fp16, and as bits the fp16 65,024
_LARGEST_SUM: Final = 60000.0
_LEAST_WEIGHT: Final = 2.0**-9  # of a position on average: below, weights are lost to subnormal numbers
_LARGEST_VALUE: Final = 2.0**14


@dataclass(frozen=True)
class AttentionByBits:
    """The operator, its inputs, and what the CPU makes of its output: values divided by `power`, and sums."""

    operator: Operator
    power: float

    def arrays(self, q: Halves, mask: Halves) -> dict[str, Halves]:
        """The operator's inputs of queries and a mask of 1 and 0."""
        return {"q": q, "mask": mask * np.float16(_LARGEST_BITS)}

    def divided(self, found: Halves, mask: Halves) -> NDArray[np.float32]:
        """The result, of the operator's output and the mask of 1 and 0.

        Raises NpuError when the shift does not suit a row: its weights add up to more than 60,000, or to less
        than 1 / 512 for each position that it sees, or it sees none.
        """
        sums = found[:, -1:].astype(np.float32)
        least = mask.sum(axis=1, dtype=np.float32, keepdims=True) * np.float32(_LEAST_WEIGHT)
        good = (sums >= least) & (sums > 0) & (sums <= _LARGEST_SUM)
        if not good.all():
            row = int(np.argmin(good))
            raise NpuError(
                f"the weights of query {row} of attention add up to {float(sums[row, 0]):g}, expected "
                f"{float(least[row, 0]):g} to {_LARGEST_SUM:g}; shift its scores by another number, "
                "or leave it to the CPU"
            )
        return found[:, :-1].astype(np.float32) * np.float32(self.power) / sums


def attention_by_bits(rows: int, keys: Halves, values: Halves, shift: float) -> AttentionByBits:
    """As `attention`, of e^(score - shift); values of at most 16,384.

    Error of the divided result against float64, with s_j the exact scores of seen positions, T = sum(e^(s_j -
    shift)), p_j the exact weights, o the exact result, delta = max(|q| |k_j|) / 2^16 (sums of magnitudes):

        |error| <= (0.045 + 2.2 delta) sum(p_j |v_j - o|) + 3.5e-5 / T sum(|v_j - o|) + |o| / 900
                   + 2^-24 t / T

    where t is 1 or the least power of two that is no less than any |v|. Raises NpuError as `attention`.
    """
    check_cache(keys, values)
    if not (np.isfinite(shift) and np.abs(values).max() <= _LARGEST_VALUE):
        raise NpuError(
            f"attention has a shift of {shift:g} and values of up to {float(np.abs(values).max()):g}, "
            f"expected a number and {_LARGEST_VALUE:g}; leave it to the CPU"
        )
    builder = Builder("attention by bits", rows)
    q = builder.input("q", keys.shape[1], LANES)
    mask = builder.input("mask", len(keys), LANES)
    builder.check(_numbers)
    weights = builder.product(
        q, widened(keys, mask.columns, q.columns), fused=(Combine.MIN, mask), bits=ExponentBits(shift)
    )
    power = 2.0 ** max(0, ceil(log2(max(1.0, float(np.abs(values).max())))))
    columns = values.shape[1] + 1
    right = np.concatenate([values.T, np.full((1, len(values)), power, np.float16)])
    first = FirstStage(multiplier=1 / power) if power > 1 else None
    result = builder.product(weights, widened(right, padded(columns, 16), mask.columns), first)
    return AttentionByBits(builder.finish(result, columns), power)


def _numbers(arrays: Mapping[str, Halves]) -> None:
    if not np.isfinite(arrays["q"]).all():
        raise NpuError("the queries of attention hold an infinity or no number")
    if not np.isin(arrays["mask"], (0, _LARGEST_BITS)).all():
        raise NpuError("a mask of attention has numbers other than 0 and 1, expected these")
