"""Attention on the NPU: its two products are int8 with exact int32 sums, all between is the CPU's.

The floats are those of `attention_spec`, bit for bit. Its scores begin as integer products of queries and
keys, and its values as integer products of codes and values, in splits of 512 positions; the NPU gives the
same integers. So there is one specification, whatever multiplies, and no threshold, fault or device changes
a result. What this file adds is how whole splits are multiplied for many queries at once:

1. Keys and values of a split are 512 rows, whatever of it is written or seen; rows that nobody sees are 0.
2. Scores int32 [queries, 512] of a KV head are products of its query heads' codes with all of these keys.
   A position's scale, the score bias (`key_bias.py`), the soft cap and the mask come after that, in floats.
3. A query's largest score is that of its split, so no tile waits for another: `merge` brings splits to one
   scale afterwards, as it does on the CPU. Codes of positions that a query does not see are 0.
4. A code of 14 bits is two planes of 7, which are two neighbouring vectors of one product: int8 has no room
   for more. Their int32 sums [2 queries, head] are high * 128 + low, below 2^31 as on the CPU.

One plane (8 bits with the sign) would halve the second product; one scale for a whole row would make one
product of all splits, after a walk over all scores. Both lose what two planes a split keep
(`python -m bench.npu_attention` prints how much).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rockledge.formats.attention_spec import (
    LANES,
    LOG2_E,
    SPLIT,
    Float32,
    Int8,
    Int64,
    Partial,
    merge,
    powers_of_two,
    sum_of_powers,
    weight_codes,
)

Int32 = npt.NDArray[np.int32]
Product = Callable[[Int8, Int8], Int32]
"""A x B transposed, int32 [m, n], of int8 [m, k] and [n, k]: what the NPU does."""

PLANE = 128
"""What a code of the high plane counts."""


def split_rows(entries: Int8, first: int, split: int) -> Int8:
    """int8 [512, d] of a split: of `entries` int8 [n, d], the rows that are there and not before `first`."""
    rows = np.zeros((SPLIT, entries.shape[1]), np.int8)
    begin = split * SPLIT
    seen = slice(max(first, begin), min(len(entries), begin + SPLIT))
    rows[seen.start - begin : seen.stop - begin] = entries[seen]
    return rows


def planes_of(codes: Int64) -> Int8:
    """int8 [2 n, 512]: high and low plane of every row of codes [n, 512]."""
    return np.stack([codes // PLANE, codes % PLANE], axis=1).reshape(-1, codes.shape[1]).astype(np.int8)


def attend(
    queries: Int8,
    query_scales: Float32,
    positions: npt.NDArray[np.int64],
    keys: Int8,
    key_scales: Float32,
    values: Int8,
    value_scales: Float32,
    *,
    scale: float,
    window: int = 0,
    product: Product,
) -> Float32:
    """fp32 [n, d]: queries int8 [n, d] with scales [n] at `positions`, over keys and values int8 [m, d] of
    positions 0 .. m - 1 with their scales; with a `window`, over so many up to their own. Without score bias
    and cap. `product` multiplies."""
    firsts = np.maximum(0, positions + 1 - window) if window else np.zeros_like(positions)
    partials: list[Partial | None] = [None] * len(queries)
    for split in range(int(firsts.min()) // SPLIT, int(positions.max()) // SPLIT + 1):
        begin = split * SPLIT
        dots = product(queries, split_rows(keys, int(firsts.min()), split))
        codes = np.zeros((len(queries), SPLIT), np.int64)
        found: dict[int, tuple[np.float32, np.float32, np.float32]] = {}
        for q, (first, position) in enumerate(zip(firsts, positions, strict=True)):
            seen = slice(max(int(first), begin), min(int(position) + 1, begin + SPLIT))
            if seen.start >= seen.stop:
                continue
            at = slice(seen.start - begin, seen.stop - begin)
            factor = query_scales[q] * np.float32(scale) * LOG2_E
            scores = dots[q, at].astype(np.float32) * (factor * key_scales[seen])
            top = scores.max()
            powers = powers_of_two(scores - top)
            codes[q, at], unit = weight_codes(powers * value_scales[seen])
            found[q] = unit, sum_of_powers(powers, seen.start % LANES), top
        sums = product(planes_of(codes), split_rows(values, int(firsts.min()), split).T.copy())
        whole = sums[0::2].astype(np.int64) * PLANE + sums[1::2]
        for q, (unit, total, top) in found.items():
            part = Partial(whole[q].astype(np.float32) * unit, total, top)
            before = partials[q]
            partials[q] = part if before is None else merge(before, part)
    return np.stack([partial.values / partial.total for partial in partials if partial is not None])
