"""Attention with exp in the scores' conversion: NumPy's bits, and within its bound against float64."""

from dataclasses import replace

import numpy as np
import pytest
from tests.npu.programs.operator_runs import halves, output_of

from rockledge.errors import NpuError
from rockledge.npu.programs.attention import causal_mask
from rockledge.npu.programs.attention_by_bits import attention_by_bits
from rockledge_npu_lab.emulation.options import DEFAULT, FloatToInt16
from rockledge_npu_lab.verify.emulated_operator import run_operator


def case(rows, positions, size, sharp=1.0):
    random = np.random.default_rng(0)
    q = halves(random.standard_normal((rows, size)) * sharp / size**0.5)
    return q, *(halves(random.standard_normal((positions, size))) for _ in range(2))


def exact_and_bound(q, keys, values, mask, shift):
    """Attention in float64, and the bound of the docstring."""
    q, keys, values = (x.astype(np.float64) for x in (q, keys, values))
    seen = mask == 1
    powers = np.where(seen, np.exp(q @ keys.T - shift), 0)
    total = powers.sum(axis=1, keepdims=True)
    out = powers / total @ values
    away = np.abs(values[None] - out[:, None])
    delta = np.where(seen, np.abs(q) @ np.abs(keys).T, 0).max(axis=1, keepdims=True) / 2**16
    bound = (0.045 + 2.2 * delta) * np.einsum("rj,rjc->rc", powers / total, away)
    bound += 3.5e-5 / total * np.einsum("rj,rjc->rc", seen, away)
    t = max(1.0, 2.0 ** np.ceil(np.log2(np.abs(values).max())))
    return out, bound + np.abs(out) / 900 + 2.0**-24 * t / total


@pytest.mark.parametrize(
    "rows, positions, size, sharp, shift",
    [(1, 1, 1, 1, 0.0), (12, 300, 64, 1, 0.0), (32, 32, 128, 1, -3.0), (12, 2048, 64, 2, 3.0)],
)
def test_attention_is_within_its_bound(rows, positions, size, sharp, shift):
    q, keys, values = case(rows, positions, size, sharp)
    mask = causal_mask(rows, positions, max(0, positions - rows))
    block = attention_by_bits(rows, keys, values, shift)
    assert len(block.operator.program.starts) == 2
    arrays = block.arrays(q, mask)
    want, bound = exact_and_bound(q, keys, values, mask, shift)
    assert (np.abs(block.divided(halves(output_of(block.operator, **arrays)), mask) - want) <= bound).all()
    option = replace(DEFAULT, float_to_int16=FloatToInt16.TRUNCATE)
    found, _ = run_operator(block.operator, arrays, option)
    assert (np.abs(block.divided(found, mask) - want) <= bound).all()


def test_what_a_query_does_not_see_counts_for_nothing_however_large():
    q, keys, values = case(12, 96, 32)
    keys[48:], values[48:] = q[0] * 4000, 10000
    mask = np.zeros((12, 96), np.float16)
    mask[:, :48] = 1
    block = attention_by_bits(12, keys, values, 0.0)
    found = block.divided(halves(output_of(block.operator, **block.arrays(q, mask))), mask)
    want, bound = exact_and_bound(q, keys[:48], values[:48], mask[:, :48], 0.0)
    assert (np.abs(found - want) <= bound + 2.0**-10).all()


@pytest.mark.parametrize("shift", [-12.0, 12.0])
def test_a_shift_that_does_not_suit_the_scores_is_noticed(shift):
    q, keys, values = case(12, 96, 32)
    block = attention_by_bits(12, keys, values, shift)
    mask = np.ones((12, 96), np.float16)
    arrays = block.arrays(q, mask)
    found, _ = run_operator(block.operator, arrays)
    assert found.tobytes() == block.operator.twin(arrays).tobytes()
    with pytest.raises(
        NpuError, match=r"the weights of query 0 of attention add up to .*, expected 0\.1875 to"
    ):
        block.divided(found, mask)


def test_what_does_not_fit_is_refused():
    q, keys, values = case(12, 96, 32)
    with pytest.raises(NpuError, match="a shift of nan and values of up to"):
        attention_by_bits(12, keys, values, np.nan)
    block, mask = attention_by_bits(12, keys, values, 0.0), np.ones((12, 96), np.float16)
    with pytest.raises(NpuError, match="numbers other than 0 and 1"):
        block.operator.packed(block.arrays(q, mask / 2))
    with pytest.raises(NpuError, match="the queries of attention hold an infinity or no number"):
        block.operator.packed(block.arrays(np.full_like(q, np.inf), mask))
    with pytest.raises(NpuError, match="the weights of query 0 of attention add up to 0, expected"):
        block.divided(block.operator.twin(block.arrays(q, mask * 0)), mask * 0)
    with pytest.raises(NpuError, match="expected float16 with equally many positions"):
        attention_by_bits(12, keys, values[:7], 0.0)
