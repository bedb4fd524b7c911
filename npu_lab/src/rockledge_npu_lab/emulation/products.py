"""The arithmetic of the multiply-accumulate array: exact integers, and floats in groups of 32 products.

Floats [H] for fp16: each aligned run of 32 inputs is summed exactly and rounded once to fp32, ties to even;
the runs are added in order in fp32, from 0. bf16 and tf32 are computed alike: their runs are not known [?].
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge_npu_lab.emulation.options import FloatSum, Options

RUN: Final = 32
# Products of int8 are at most 2^14, so sums of 1,024 of them are exact in float32 whatever their order.
EXACT_RUN: Final = 1024
# Elements of one block of a float result: bounds the memory of its float64 sums.
_BLOCK: Final = 1 << 21
_EXACT_BLOCK: Final = 1 << 15
_LANES: Final = 16

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


def integer_products(a: NDArray[np.int8], kernels: NDArray[np.int8]) -> NDArray[np.int32]:
    """[pixels, N] int32 of `a` [K / c, pixels, c] and `kernels` [N / group, K / run, group, run], both int8.

    Exact; with at most 65,535 inputs no sum leaves int32.
    """
    _, pixels, atom = a.shape
    blocks, runs, group, run = kernels.shape
    total: NDArray[np.int32] | None = None
    for first in range(0, runs, EXACT_RUN // run):
        last = min(first + EXACT_RUN // run, runs)
        part = kernels[:, first:last].transpose(0, 2, 1, 3).astype(np.float32, order="C")
        mine = a[first * run // atom : last * run // atom].transpose(1, 0, 2).astype(np.float32, order="C")
        sums = mine.reshape(pixels, -1) @ part.reshape(blocks * group, -1).T
        total = sums.astype(np.int32) if total is None else np.add(total, sums, total, casting="unsafe")
    assert total is not None
    return total


def float_products(a: Floats, b: Floats, options: Options, fp16: bool) -> Singles:
    """[M, N] fp32 of `a` [M, K] and `b` [N, K], whose products are exact in float64.

    `fp16` allows the events of output lane 0 that only fp16 was seen to have.
    """
    result = np.empty((len(a), len(b)), np.float32)
    width = max(_LANES, _BLOCK // max(1, len(a)) // _LANES * _LANES)
    random = np.random.default_rng(options.seed)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for first in range(0, len(b), width):
            part = b[first : first + width]
            if options.float_sum is FloatSum.EXACT:
                sums = (a @ part.T).astype(np.float32)
            elif options.float_sum is FloatSum.IN_ORDER:
                sums = _in_order(a, part)
            else:
                sums = _in_runs(a, part, options.lane0_event_rate if fp16 else 0.0, random)
            result[:, first : first + width] = sums
    return result


def _in_order(a: Floats, b: Floats) -> Singles:
    sums = np.zeros((len(a), len(b)), np.float32)
    columns, rows = a.astype(np.float32), b.astype(np.float32)
    for k in range(a.shape[1]):
        sums += columns[:, k, None] * rows[None, :, k]
    return sums


def _in_runs(a: Floats, b: Floats, event_rate: float, random: np.random.Generator) -> Singles:
    sums = np.zeros((len(a), len(b)), np.float32)
    for first in range(0, a.shape[1], RUN):
        mine, theirs = a[:, first : first + RUN], b[:, first : first + RUN]
        run = rounded_sums(mine, theirs)
        if event_rate:
            _lower_lane_0(run, mine, theirs, event_rate, random)
        sums += run
    return sums


def rounded_sums(a: Floats, b: Floats) -> Singles:
    """[M, N]: exact sums of products over the inputs of `a` [M, k] and `b` [N, k], rounded once to fp32.

    float64 sums decide all but those so near a tie that their own error matters; these are summed exactly.
    """
    sums = a @ b.T
    rounded = sums.astype(np.float32)
    inputs = a.shape[1]
    # |error| <= inputs * 2^-53 * sum of |products|, in any order, with or without fused operations.
    error = np.abs(a).max(axis=1)[:, None] * np.abs(b).max(axis=1)[None, :]
    error *= inputs * (inputs + 2) * 2.0**-53
    low, high = (sums - error).astype(np.float32), (sums + error).astype(np.float32)
    doubtful = (low != high) & np.isfinite(sums)
    rows, columns = np.nonzero(doubtful)
    for first in range(0, len(rows), _EXACT_BLOCK):
        mine, theirs = rows[first : first + _EXACT_BLOCK], columns[first : first + _EXACT_BLOCK]
        rounded[mine, theirs] = round_exactly(a[mine] * b[theirs])
    return rounded


def round_exactly(terms: Floats) -> Singles:
    """fp32 nearest to the exact sum of each row of `terms` [rows, k], ties to even.

    Errors of each addition go to a second and a third sum (error-free transformation); the float64 that is
    rounded at last is made odd where anything is left, so that it never pretends to be a tie.
    """
    sums, small, smaller = (np.zeros(len(terms)) for _ in range(3))
    for k in range(terms.shape[1]):
        sums, left = _two_sum(sums, terms[:, k])
        small, left = _two_sum(small, left)
        smaller += left
    for _ in range(2):
        sums, small = _two_sum(sums, small)
        small, smaller = _two_sum(small, smaller)
    left = np.where(small != 0, small, smaller)
    even = (sums.view(np.int64) & 1) == 0
    odd = np.nextafter(sums, np.where(left > 0, np.inf, -np.inf))
    return np.where((left != 0) & even, odd, sums).astype(np.float32)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """a + b rounded, and what the rounding lost, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _lower_lane_0(run: Singles, a: Floats, b: Floats, rate: float, random: np.random.Generator) -> None:
    """Lowers some results of lane 0 as on hardware [H]; when is not known, so by chance.

    By 2^(4 C - 44), C the largest sum of coarse exponents (biased fp16 exponent / 4) of the run's products. A
    run with a feature of +0 is spared.
    """
    hit = random.random((len(a), -(-len(b) // _LANES))) < rate
    zero = ((a == 0) & ~np.signbit(a)).any(axis=1)
    hit[zero] = False
    rows, groups = np.nonzero(hit)
    columns = groups * _LANES
    mine, theirs = a[rows], b[columns]
    coarse = _coarse(mine) + _coarse(theirs)
    largest = np.where((mine != 0) & (theirs != 0), coarse, 0).max(axis=1, initial=0)
    exact = (mine * theirs).sum(axis=1)
    run[rows, columns] = (exact - 2.0 ** (4 * largest - 44)).astype(np.float32)


def _coarse(values: Floats) -> NDArray[np.int64]:
    biased = np.frexp(values)[1].astype(np.int64) + 14
    return np.maximum(biased, 1) >> 2
