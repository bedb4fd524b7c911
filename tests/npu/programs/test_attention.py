"""Attention in one submit on the emulator: NumPy's bits, and within its bound against float64."""

import numpy as np
import pytest
from tests.npu.programs.operator_runs import halves, outputs_of

from rockledge.errors import NpuError
from rockledge.npu.programs.attention import attention, causal_mask


def exact_and_bound(q, keys, values, mask):
    """Attention in float64, and the bound of the operator's docstring."""
    q, keys, values = (x.astype(np.float64) for x in (q, keys, values))
    seen = mask == 1
    scores = np.where(seen, q @ keys.T, -np.inf)
    below = scores - scores.max(axis=1, keepdims=True)
    powers = np.exp(below)
    total = powers.sum(axis=1, keepdims=True)
    out = powers / total @ values
    sizes = np.where(seen, np.abs(scores) / 2048 + np.abs(q) @ np.abs(keys).T / 2**16, 0)
    delta = sizes.max(axis=1, keepdims=True)
    spread = np.exp(2 * delta) * (1 + 1 / 256 + np.where(seen, np.abs(below), 0) / 1024) - 1
    weights = np.where(seen, powers / total * spread + 3e-7 / total, 0)
    bound = 1.1 * (weights @ np.abs(values) + weights.sum(axis=1, keepdims=True) * np.abs(out))
    t = max(1.0, 2.0 ** np.ceil(np.log2(1.01 * np.abs(values).sum(axis=0).max() / 65504)))
    return out, bound + np.abs(out) / 256 + 2.0**-24 * t


def case(rows, positions, size, sharp=1.0, columns=None, seed=0):
    random = np.random.default_rng(seed)
    q = random.standard_normal((rows, size)) * sharp / size**0.5
    keys = random.standard_normal((positions, size))
    values = random.standard_normal((positions, columns or size))
    return halves(q), halves(keys), halves(values)


def holds(q, keys, values, mask):
    want, bound = exact_and_bound(q, keys, values, mask)
    for found in outputs_of(attention(len(q), keys, values), q=q, mask=mask):
        assert (np.abs(found - want) <= bound).all()
    return want


@pytest.mark.parametrize(
    "rows, positions, size", [(1, 1, 1), (5, 37, 20), (12, 300, 64), (32, 32, 128), (12, 2048, 64)]
)
def test_causal_attention_is_within_its_bound(rows, positions, size):
    start = max(0, positions - rows)
    holds(*case(rows, positions, size), causal_mask(rows, positions, start))


@pytest.mark.parametrize("sharp", [0.0, 8.0, 60.0])
def test_attention_of_flat_and_of_sharp_scores_is_within_its_bound(sharp):
    holds(*case(12, 160, 64, sharp, columns=40), causal_mask(12, 160, 100))


def test_what_a_query_does_not_see_counts_for_nothing_however_large():
    """Hidden positions have the largest scores and values by far; the result is that without them."""
    q, keys, values = case(12, 96, 32)
    keys[48:], values[48:] = q[0] * 4000, 60000
    mask = np.zeros((12, 96), np.float16)
    mask[:, :48] = 1
    want, bound = exact_and_bound(q, keys[:48], values[:48], mask[:, :48])
    for found in outputs_of(attention(12, keys, values), q=q, mask=mask):
        # 48 values of 60,000 add up to 44 times the largest fp16.
        assert (np.abs(found - want) <= bound + 2.0**-24 * 64).all()


def test_a_long_tail_is_not_lost():
    """2,047 scores 10 below one: together 9 % of the result, each of them beyond 15 bits of a weight."""
    q, keys = np.zeros((1, 32)), np.zeros((2048, 32))
    q[0, 0], keys[5, 0] = 1, 10
    values = np.ones((2048, 16))
    values[5] = 0
    want = holds(halves(q), halves(keys), halves(values), np.ones((1, 2048), np.float16))
    assert want.min() > 0.08


def test_values_whose_sum_leaves_fp16_are_scaled():
    q, keys, values = case(12, 64, 32)
    holds(q, keys, halves(np.full(values.shape, 30000.0)), np.ones((12, 64), np.float16))


def test_a_causal_mask_ends_at_each_query_s_own_position():
    np.testing.assert_array_equal(causal_mask(2, 4, 1), [[1, 1, 0, 0], [1, 1, 1, 0]])


@pytest.mark.parametrize(
    "rows, positions, size, message",
    [
        (12, 4097, 8, "4097 positions, expected up to 4096"),
        (64, 4096, 8, "64 rows and 4096 inputs needs 16 data and 8 weight banks"),
    ],
)
def test_attention_that_does_not_fit_is_refused(rows, positions, size, message):
    _, keys, values = case(rows, positions, size)
    with pytest.raises(NpuError, match=message):
        attention(rows, keys, values)


def test_keys_and_values_that_are_none_are_refused():
    _, keys, values = case(12, 8, 8)
    with pytest.raises(NpuError, match=r"keys float16 \[8, 8\], values float16 \[7, 8\], expected"):
        attention(12, keys, values[:7])
    values[3, 3] = np.inf
    with pytest.raises(NpuError, match="the values of attention hold an infinity or no number"):
        attention(12, keys, values)


def test_queries_and_masks_that_are_none_are_refused():
    q, keys, values = case(12, 8, 8)
    operator, mask = attention(12, keys, values), causal_mask(12, 8, 0)
    for bad in (20000.0, np.nan):
        with pytest.raises(NpuError, match="query 0 of attention has a norm of"):
            operator.packed({"q": np.full_like(q, bad), "mask": mask})
    for wrong in (mask * 0, mask / 2):
        with pytest.raises(NpuError, match="a mask of attention has"):
            operator.packed({"q": q, "mask": wrong.astype(np.float16)})
    with pytest.raises(NpuError, match=r"mask of attention is float16 \[12, 9\], expected float16 \[12, 8\]"):
        operator.packed({"q": q, "mask": np.ones((12, 9), np.float16)})
