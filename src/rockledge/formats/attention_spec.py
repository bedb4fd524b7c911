"""Attention's specification: one query of one head over int8 keys and values, in splits of 512 positions.

Every kernel gives these floats bit for bit, for prompts and in decode, whatever chunks, batches and threads.
Positions are cut at multiples of `SPLIT` from the sequence's beginning, whatever a step contains, and splits
are merged in their order. In a split:

1. Scores in units of ln 2: integer products of query and key, times both scales, the model's and log2 e.
2. Powers of two of their distances from the split's largest score, 3e-6 off at most (`powers_of_two`). Lane i
   of eight adds up those of positions 8 k + i in fp32, and the lanes are added in one fixed order.
3. A weight is a power of two times the scale of its position's value. Weights are rounded to 14 bits of the
   split's largest, two planes of 7 bits, which every processor multiplies by int8 without saturating:
   2 * 127 * 127 < 2^15. Codes times values are added up as integers, below 2^31, and so in any order.

The error. A code is off by half of one at most, so with `p` the softmax's weights (they add up to 1), `s` and
`v` the scales and int8 values of the positions, an output is off by at most

    max(p * s) / 32766 * sum |v|     and by about 3e-6 for each split, relative, for the powers of two.

On SmolLM2-135M the rounding adds 3e-7 nats of divergence, where int8 queries, keys and values cost 8.6e-4
(`python -m bench.attention_accuracy` prints both for any artifact's model).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]

SPLIT = 512
"""Positions of a split."""
MOST_CODE = 128 * 127 + 127
"""The code of a split's largest weight."""
LANES = 8
LOG2_E = np.float32(1.44269504)
POWER_FACTORS = (9.582853876e-3, 5.5906426162e-2, 2.4024099112e-1, 6.9312417507e-1, 1.0)
"""Of r^4 to 1 in 2^r, |r| <= 1/2: the least largest relative error of polynomials that are 1 at 0."""
POWER_ERROR = 3e-6
"""Largest relative error of `powers_of_two` from -126 to 0."""
_WHOLE = np.float32(12582912)  # 1.5 * 2^23: numbers that it is added to become whole, half to even


def powers_of_two(x: Float32) -> Float32:
    """2^x of fp32 x <= 0; exactly 0 from -127 down, and below 2^-126 between. Every operation is fp32."""
    clamped = np.maximum(x, np.float32(-127))
    whole = (clamped + _WHOLE) - _WHOLE
    rest = clamped - whole
    power = np.full_like(rest, np.float32(POWER_FACTORS[0]))
    for factor in POWER_FACTORS[1:]:
        power = power * rest + np.float32(factor)
    bits = power.view(np.int32) + (whole.astype(np.int32) << 23)
    return np.asarray(bits.view(np.float32), np.float32)


def weight_codes(weights: Float32) -> tuple[Int64, np.float32]:
    """Weights fp32 [n] >= 0 of a split as codes from 0 to `MOST_CODE`, and the fp32 that a code of 1 stands
    for. Where the largest is so small that its inverse is not finite, all are 0."""
    largest = weights.max(initial=np.float32(0))
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(MOST_CODE) / largest
    if not np.isfinite(inverse):
        return np.zeros(len(weights), np.int64), np.float32(0)
    return np.rint(weights * inverse).astype(np.int64), largest / np.float32(MOST_CODE)


def sum_of_powers(powers: Float32, lane: int) -> np.float32:
    """The fp32 sum of a split's powers of two, of which the first has the lane `lane`."""
    lanes = np.zeros(LANES, np.float32)
    for block in np.pad(powers, (lane, -(lane + len(powers)) % LANES)).reshape(-1, LANES):
        lanes = lanes + block
    half = lanes[:4] + lanes[4:]
    total: np.float32 = (half[0] + half[2]) + (half[1] + half[3])
    return total


@dataclass(frozen=True)
class Partial:
    """What the splits so far have found: fp32 sums of weighted values [d], the sum of powers of two, and the
    largest score, from which both count."""

    values: Float32
    total: np.float32
    top: np.float32


def attend_split(scores: Float32, values: Int8, value_scales: Float32, lane: int) -> Partial:
    """One split: `scores` fp32 [n] in units of ln 2 of the positions that the query sees, of which the first
    has the lane `lane`; their values int8 [n, d] with scales fp32 [n]."""
    top = scores.max()
    powers = powers_of_two(scores - top)
    codes, unit = weight_codes(powers * value_scales)
    sums = codes @ values.astype(np.int64)
    return Partial(sums.astype(np.float32) * unit, sum_of_powers(powers, lane), top)


def merge(before: Partial, after: Partial) -> Partial:
    """Two partials as one that counts from the larger top."""
    top = max(before.top, after.top)
    keep, add = powers_of_two(np.array([before.top - top, after.top - top], np.float32))
    values = before.values * keep + after.values * add
    return Partial(values, before.total * keep + after.total * add, top)


def attend(
    query: Int8,
    query_scale: np.float32,
    keys: Int8,
    key_scales: Float32,
    values: Int8,
    value_scales: Float32,
    *,
    scale: float,
    first: int = 0,
) -> Float32:
    """fp32 [d]: the query int8 [d] at the last of n positions, which sees those from `first` on; keys and
    values int8 [n, d] with their scales fp32 [n]; `scale` of the scores. Without score bias and cap."""
    dots = (keys.astype(np.int64) @ query.astype(np.int64)).astype(np.float32)
    scores = dots * (query_scale * np.float32(scale) * LOG2_E * key_scales)
    found: Partial | None = None
    for begin in range(first // SPLIT * SPLIT, len(keys), SPLIT):
        seen = slice(max(first, begin), begin + SPLIT)
        part = attend_split(scores[seen], values[seen], value_scales[seen], seen.start % LANES)
        found = part if found is None else merge(found, part)
    assert found is not None, "a query sees its own position"
    return found.values / found.total
