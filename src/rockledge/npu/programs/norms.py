"""RMSNorm and LayerNorm over rows, each as one submit: products for sums, a table and Newton for the root.

| step | programs | where |
| --- | --- | --- |
| LayerNorm: less the mean, twice | 2 each | a product with 1 / columns, one that spreads it, plus x |
| squares, scaled by a power of two | 1 for each 32,768 elements | DPU |
| mean square plus epsilon | 1 | a product with ones |
| reciprocal square root | 1 or 3 for the guess, 3 or 6 of Newton | DPU: tables, elementwise |
| times gamma times x | 1 | a product that spreads it times gamma, times x |
| LayerNorm: plus beta | 1 | a product of ones with beta, plus that |

What published experience says of speed: alone, norms are bound by submits and lose to four A76 cores (GRN).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import frexp, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.lut import FP16_END, LARGEST_HALF
from rockledge.npu.programs.elementwise import Combine, FirstStage
from rockledge.npu.programs.operator import Builder, Operator, Tensor
from rockledge.npu.programs.row_steps import LANES, reciprocal_root, row_sum, spread

Halves = NDArray[np.float16]
LARGEST_COLUMNS: Final = 4096
_PEAK: Final = 255.0  # what the largest input is scaled below: its square, and the mean of squares, fit fp16
# Powers of two by which inputs can be scaled: their squares are the fp16 multiplier of the first stage.
_SCALINGS: Final = (-12, 7)
_LEAST_MEAN: Final = 2.0**-14  # of scaled squares: below, fp16 loses bits
_LARGEST_LIFT: Final = 14  # gamma's power of two is taken back by 2^-14, the least normal fp16, at most


@dataclass(frozen=True)
class NormRange:
    """What calibration saw of a norm's input (LayerNorm: less its mean).

    Its largest magnitude, and the least and the largest mean square of a row.
    """

    peak: float
    least_mean_square: float
    largest_mean_square: float


def seen(x: NDArray[np.floating], *, centred: bool = False) -> NormRange:
    """The range of rows `x` [rows, columns], widened by a quarter; `centred` for LayerNorm."""
    wide = x.astype(np.float64)
    if centred:
        wide = wide - wide.mean(axis=1, keepdims=True)
    means = (wide**2).mean(axis=1)
    peak = min(float(np.abs(wide).max()) * 1.25, LARGEST_HALF)
    return NormRange(peak, float(means.min()) / 1.25, min(float(means.max()) * 1.25, peak**2))


def rmsnorm(rows: int, gamma: NDArray[np.floating], epsilon: float, ranges: NormRange) -> Operator:
    """x / sqrt(mean(x^2) + epsilon) * gamma of "x" fp16 [rows, columns], as many columns as gamma.

    |error| <= |y| / 256 + 1e-6 |gamma| + 6e-8 against float64. Rows whose mean
    square, or elements whose magnitude, lie outside `ranges` are refused: the tables are solved for it; so
    are rows with a result beyond fp16. Raises NpuError for ranges that fp16 or two tables cannot hold, an
    epsilon below 0, and beyond 4,096 columns.
    """
    builder = Builder("RMSNorm", rows)
    columns = _columns("RMSNorm", gamma)
    x = builder.input("x", columns, LANES)
    builder.check(_inside("RMSNorm", ranges, centred=False))
    builder.check(_fits("RMSNorm", gamma, np.zeros(columns), epsilon, centred=False))
    return builder.finish(rmsnorm_of(builder, x, gamma, epsilon, ranges), columns)


def layernorm(
    rows: int, gamma: NDArray[np.floating], beta: NDArray[np.floating], epsilon: float, ranges: NormRange
) -> Operator:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta of the input "x"; `ranges` are those of x - mean.

    With s the standard deviation (epsilon included) and m the row's largest |x|, or 2^-14 where that is more
    (below it, fp16 is no finer): |error| <= |y - beta| / 256 + |gamma| (m / s) / 1024 + (|y| + |beta|) / 1024
    + 1e-6 |gamma| + 6e-8. The mean is taken off twice, so that its own rounding is taken off too. `ones` is
    fp16 1 [rows, 32]. Rows outside `ranges` or with results beyond fp16 are refused, as by `rmsnorm`.
    """
    builder = Builder("LayerNorm", rows)
    columns = _columns("LayerNorm", gamma)
    if len(beta) != columns:
        raise NpuError(f"a LayerNorm has {columns} numbers gamma and {len(beta)} beta, expected equally many")
    if not (np.abs(beta) <= LARGEST_HALF).all():
        raise NpuError(
            f"beta reaches {np.abs(beta).max():g}, which fp16 does not hold; leave this norm to the CPU"
        )
    x = builder.input("x", columns, LANES)
    ones = builder.input("ones", LANES, LANES, fill=1.0)
    builder.check(_inside("LayerNorm", ranges, centred=True))
    builder.check(_fits("LayerNorm", gamma, beta, epsilon, centred=True))
    builder.check(_ones)
    centred = _less_mean(builder, _less_mean(builder, x, columns), columns)
    scaled = rmsnorm_of(builder, centred, gamma, epsilon, ranges)
    result = spread(builder, ones, _split(beta), Combine.ADD, scaled)
    return builder.finish(result, columns)


def rmsnorm_of(
    builder: Builder, x: Tensor, gamma: NDArray[np.floating], epsilon: float, ranges: NormRange
) -> Tensor:
    """The steps of RMSNorm; columns of `x` beyond those of gamma count for nothing."""
    columns = len(gamma)
    if not 0 <= epsilon <= LARGEST_HALF:
        raise NpuError(f"the epsilon of a norm is {epsilon:g}, expected 0 to {LARGEST_HALF:g}")
    down = _scaling(ranges, columns)
    # The mean is a sum of squares by a power of two: what is missing to 1 / columns goes into gamma.
    bits = (columns - 1).bit_length()
    share = columns / 2.0**bits * 4.0**down
    if share * ranges.least_mean_square < _LEAST_MEAN and share * epsilon < _LEAST_MEAN:
        raise NpuError(
            f"the mean squares of a norm reach down to {ranges.least_mean_square:g} beside elements of "
            f"{ranges.peak:g}, which squares in fp16 do not hold; leave this norm to the CPU"
        )
    up = _raising(share * (ranges.largest_mean_square + epsilon), share)
    share *= 2.0**up
    low, high = (share * (m + epsilon) for m in (ranges.least_mean_square, ranges.largest_mean_square))
    factors = gamma.astype(np.float64) * sqrt(share)
    if not (np.abs(factors) <= LARGEST_HALF).all():
        raise NpuError(
            f"gamma reaches {np.abs(gamma).max():g} for mean squares of {ranges.least_mean_square:g}, which "
            "fp16 "
            "does not hold together; leave this norm to the CPU"
        )
    squares = builder.pair(Combine.MULTIPLY, x, x, FirstStage(multiplier=4.0**down))
    mean = row_sum(builder, squares, columns, 2.0 ** (up - bits), FirstStage("add", share * epsilon))
    # Roundings of squares and mean may carry it past the ends.
    root = reciprocal_root(builder, mean, low * (1 - 2.0**-8), high * (1 + 2.0**-8))
    # Small gammas of large rows are below what fp16 holds well: raised before, lowered after their product.
    lift = int(np.clip(14 - frexp(float(np.abs(factors).max()))[1], 0, _LARGEST_LIFT))
    lower = FirstStage(multiplier=2.0**-lift) if lift else None
    return spread(builder, root, _split(factors * 2.0**lift), Combine.MULTIPLY, x, lower)


def _less_mean(builder: Builder, x: Tensor, columns: int) -> Tensor:
    """x - mean(x): the sum by a power of two, then spread with what is missing to -1 / columns."""
    bits = (columns - 1).bit_length()
    total = row_sum(builder, x, columns, 2.0**-bits)
    return spread(builder, total, _split(np.full(columns, -(2.0**bits) / columns)), Combine.ADD, x)


def _split(factors: NDArray[np.floating]) -> Halves:
    """[2, columns]: fp16 numbers whose sum is the factors to about 22 bits."""
    wide = factors.astype(np.float64)
    high = wide.astype(np.float16)
    return np.stack([high, (wide - high).astype(np.float16)])


def _scaling(ranges: NormRange, columns: int) -> int:
    """The power of two that brings the largest magnitude below 255 and, if it can, to half of that.

    No element is larger than all of a row's squares together, whatever the range says of its peak.
    """
    finite = np.isfinite([ranges.peak, ranges.least_mean_square, ranges.largest_mean_square]).all()
    ordered = 0 <= ranges.least_mean_square <= ranges.largest_mean_square <= ranges.peak**2
    if not (finite and ordered and 0 < ranges.peak <= LARGEST_HALF):
        raise NpuError(
            f"a norm's range is {ranges.least_mean_square:g} to {ranges.largest_mean_square:g} with "
            f"elements of {ranges.peak:g}, expected rising mean squares of such elements, which fit fp16; "
            "calibrate"
        )
    peak = max(min(ranges.peak, sqrt(columns * ranges.largest_mean_square)), 2.0**-24)
    return int(np.clip(-frexp(peak / _PEAK)[1], *_SCALINGS))


def _raising(high: float, share: float) -> int:
    """The power of two that brings scaled mean squares up to 32,768, and gamma by no more than 1,024."""
    return min(15 - frexp(high)[1], 20 - frexp(share)[1])


def _columns(name: str, gamma: NDArray[np.floating]) -> int:
    if not 1 <= len(gamma) <= LARGEST_COLUMNS:
        raise NpuError(
            f"{name} has {len(gamma)} columns, expected 1 to {LARGEST_COLUMNS}; compute it on the CPU"
        )
    return len(gamma)


def _inside(name: str, ranges: NormRange, *, centred: bool) -> Callable[[Mapping[str, Halves]], None]:
    """Refuses rows beyond the range."""

    def check(arrays: Mapping[str, Halves]) -> None:
        x = arrays["x"].astype(np.float64)
        if centred:
            x = x - x.mean(axis=1, keepdims=True)
        means = (x**2).mean(axis=1)
        inside = (np.abs(x).max(axis=1) <= ranges.peak) & (means <= ranges.largest_mean_square)
        inside &= means >= ranges.least_mean_square
        if not inside.all():
            row = int(np.argmin(inside))
            raise NpuError(
                f"row {row} of {name} has a mean square of {means[row]:g} and elements up to "
                f"{np.abs(x[row]).max():g}, expected {ranges.least_mean_square:g} to "
                f"{ranges.largest_mean_square:g} and {ranges.peak:g}, the range that its tables were solved "
                "for; "
                "calibrate on text that reaches it"
            )

    return check


def _fits(
    name: str, gamma: NDArray[np.floating], beta: NDArray[np.floating], epsilon: float, *, centred: bool
) -> Callable[[Mapping[str, Halves]], None]:
    """Refuses rows of which a result, or what it is computed from, would be rounded to infinity."""

    def check(arrays: Mapping[str, Halves]) -> None:
        x = arrays["x"].astype(np.float64)
        mean = x.mean(axis=1, keepdims=True) if centred else np.zeros((len(x), 1))
        less = x - mean
        scaled = less / np.sqrt((less**2).mean(axis=1, keepdims=True) + epsilon) * gamma
        # The bounds of the error added: of the mean that is taken off, and of the result.
        largest = np.abs(less) + np.abs(mean) / 1024
        largest = np.maximum(largest, np.maximum(np.abs(scaled), np.abs(scaled + beta)) * (1 + 1 / 128))
        if (largest >= FP16_END).any():
            row = int(largest.max(axis=1).argmax())
            raise NpuError(
                f"row {row} of {name} has a result beyond {LARGEST_HALF:g}, the largest fp16; scale gamma "
                "and beta, or leave this norm to the CPU"
            )

    return check


def _ones(arrays: Mapping[str, Halves]) -> None:
    if not (arrays["ones"] == 1).all():
        raise NpuError("the ones of LayerNorm are not all 1, with which beta is multiplied; fill them with 1")
