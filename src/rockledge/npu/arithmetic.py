"""The NPU's fp16 arithmetic in NumPy, to the bit: products, two operands combined, the first stage.

It is the specification of the operators in `programs/` on a CPU: shapes and values, no registers. Sources:
sums in exact groups of 32 [H: GRN2]; stages compute in fp32 and round once to fp16, ties to even [H: GRN].
"""

from __future__ import annotations

from math import fsum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu.programs.elementwise import EXPONENT_FACTOR, Combine, ExponentBits, FirstStage

RUN: Final = 32
Halves = NDArray[np.float16]
Singles = NDArray[np.float32]


def products(a: Halves, b: Halves) -> Singles:
    """A[rows, inputs] x B[columns, inputs] transposed: exact in groups of 32, added in order in fp32."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    total = np.zeros((len(a), len(b)), np.float32)
    for first in range(0, a.shape[1], RUN):
        total += _rounded_sums(wide_a[:, first : first + RUN], wide_b[:, first : first + RUN])
    return total


def staged(x: Singles, first: FirstStage | None) -> Singles:
    """`x` through the first stage: the ALU, then the multiplier, each rounded to fp32."""
    if first is None:
        return x
    operand = np.float32(first.operand)
    if first.alu is not None:
        alu = {"max": np.maximum, "min": np.minimum, "add": np.add, "subtract": np.subtract}[first.alu]
        x = alu(x, operand)
    return x if first.multiplier is None else x * np.float32(first.multiplier)


def combined(combine: Combine, x: Singles, operand: Halves) -> Singles:
    """`x` combined with an fp16 operand of the same shape, in fp32."""
    y = operand.astype(np.float32)
    if combine is Combine.MULTIPLY:
        return x * y
    return {Combine.ADD: np.add, Combine.MAX: np.maximum, Combine.MIN: np.minimum}[combine](x, y)


def stored(x: Singles) -> Halves:
    """`x` as the output conversion writes it: its offset of 0 is added, so that -0 becomes 0, and rounded."""
    return (x + np.float32(0)).astype(np.float16)


def exponents(x: Singles, bits: ExponentBits) -> Singles:
    """The bits of e^(x - shift) as numbers, before they are rounded to integers."""
    found: Singles = x * np.float32(EXPONENT_FACTOR) + np.float32(bits.addition)
    return np.maximum(found, np.float32(0))


def stored_bits(x: Singles) -> Halves:
    """Numbers as an int16 conversion writes them, ties to even and saturated, read as fp16."""
    return np.clip(np.rint(x), -32768, 32767).astype(np.int16).view(np.float16)


def _rounded_sums(a: NDArray[np.float64], b: NDArray[np.float64]) -> Singles:
    """Exact sums of products of fp16, rounded once to fp32.

    float64 decides unless its own error could move the result across a tie; those few are added exactly.
    """
    sums = a @ b.T
    bound = (np.abs(a) @ np.abs(b).T) * (2 * RUN * 2.0**-53)
    rounded = sums.astype(np.float32)
    open_ = (sums - bound).astype(np.float32) != (sums + bound).astype(np.float32)
    for row, column in np.argwhere(open_ & np.isfinite(sums)):
        rounded[row, column] = _nearest((a[row] * b[column]).tolist())
    return rounded


def _nearest(terms: list[float]) -> np.float32:
    """The fp32 nearest to the exact sum of the terms, ties to even."""
    total = fsum(terms)
    nearest = np.float32(total)
    # `total` is the sum rounded once; where it looks like a tie, what it lost decides.
    lost = fsum([*terms, -total])
    if lost == 0:
        return nearest
    toward = np.float32(np.inf if lost > 0 else -np.inf)
    other = np.nextafter(nearest, toward)
    tie = 2 * total == float(nearest) + float(other)
    return other if tie else nearest
