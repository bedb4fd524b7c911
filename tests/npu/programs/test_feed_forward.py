"""The feed-forward block on the emulator: equal to NumPy to the bit, and within its bound against float64."""

from dataclasses import replace

import numpy as np
import pytest
from tests.npu.programs.operator_runs import halves, outputs_of

from rockledge.errors import NpuError
from rockledge.npu.programs.feed_forward import feed_forward
from rockledge_npu_lab.emulation.options import DEFAULT, ElementwiseFp16, FloatSum, Fp16Overflow
from rockledge_npu_lab.verify.emulated_operator import run_operator


def weights(inputs, intermediate, outputs, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    gate, up = (halves(random.standard_normal((intermediate, inputs)) * scale) for _ in range(2))
    return gate, up, halves(random.standard_normal((outputs, intermediate)) * scale)


def rows_of(count, inputs, scale=1.0, seed=1):
    return halves(np.random.default_rng(seed).standard_normal((count, inputs)) * scale)


def norm_of(x):
    return float(np.sqrt((x.astype(np.float64) ** 2).sum(axis=1)).max())


def exact_and_bound(x, gate, up, down, block):
    """The block in float64, and the bound of its docstring."""
    x, gate, up, down = (a.astype(np.float64) for a in (x, gate, up, down))
    g, u = x @ gate.T, x @ up.T
    s = g * (1 + np.tanh(g / 2)) / 2
    h = s * u
    gates, ups = (np.abs(x) @ np.abs(w).T for w in (gate, up))
    dg = np.abs(g) / 2048 + gates / 2**16 + 2.0**-25
    ds = 1.1 * dg + np.abs(s) / 1024 + 7e-4
    dh = np.abs(u) * ds + (np.abs(s) + ds) * ups / 2**16 + (np.abs(h) + np.abs(u) * ds) / 1024
    dh += 2.0**-25 / block.hidden_scale
    wrong, sums = dh @ np.abs(down).T, np.abs(h) @ np.abs(down).T
    bound = wrong + block.parts * (sums + wrong) / 2048 + sums / 2**16 + block.parts * 2.0**-25 / block.scale
    return h @ down.T, bound


def holds(x, gate, up, down):
    block = feed_forward(len(x), gate, up, down, norm_of(x))
    want, bound = exact_and_bound(x, gate, up, down, block)
    for found in outputs_of(block.operator, x=x):
        assert (np.abs(found / block.scale - want) <= bound).all()
    return block


@pytest.mark.parametrize(
    "rows, inputs, intermediate, outputs", [(1, 1, 1, 1), (5, 100, 200, 72), (12, 32, 4128, 16)]
)
def test_a_feed_forward_block_is_within_its_bound(rows, inputs, intermediate, outputs):
    x = rows_of(rows, inputs)
    block = holds(x, *weights(inputs, intermediate, outputs, inputs**-0.5))
    assert block.parts == 1 + (intermediate > 4096)


def test_parts_are_as_wide_as_the_convolution_buffer_allows_beside_many_rows():
    x, (gate, up, down) = rows_of(256, 32), weights(32, 700, 16, 0.1)
    block = feed_forward(256, gate, up, down, norm_of(x))
    assert block.parts == 2
    want, bound = exact_and_bound(x, gate, up, down, block)
    assert (np.abs(block.operator.twin({"x": x}).astype(np.float64) / block.scale - want) <= bound).all()


def test_rows_so_large_that_results_leave_fp16_are_scaled_instead():
    gate, up, down = weights(64, 128, 32)
    x = rows_of(12, 64, 25.0)
    block = holds(x, gate, up, down)
    assert block.scale < 1
    assert np.abs(block.operator.twin({"x": x}).astype(np.float64)).max() / block.scale > 65504


@pytest.mark.parametrize(
    "option", [{"elementwise_fp16": ElementwiseFp16.ROUND_FIRST}, {"float_sum": FloatSum.IN_ORDER}]
)
def test_what_is_not_known_of_the_chip_does_not_carry_it_out_of_its_bound(option):
    x, (gate, up, down) = rows_of(12, 96), weights(96, 128, 32, 0.1)
    block = feed_forward(12, gate, up, down, norm_of(x))
    want, bound = exact_and_bound(x, gate, up, down, block)
    found, _ = run_operator(block.operator, {"x": x}, replace(DEFAULT, **option))
    assert (np.abs(found.astype(np.float64) / block.scale - want) <= bound).all()


def test_no_overflow_is_possible_for_a_row_of_the_stated_norm():
    """The worst row there is: along the weights of one gate, which equal those of its up."""
    gate = halves(np.full((32, 64), 0.5))
    down = halves(np.full((16, 32), 8.0))
    x = halves(np.full((12, 64), 50.0))
    block = feed_forward(12, gate, gate, down, 400.0)
    for overflow in Fp16Overflow:
        found, flags = run_operator(block.operator, {"x": x}, replace(DEFAULT, fp16_overflow=overflow))
        assert flags == ()
        np.testing.assert_allclose(found.astype(np.float64) / block.scale, 1600.0**2 * 256, rtol=2e-3)


@pytest.mark.parametrize(
    "rows, shape, norm, message",
    [
        (12, (5000, 32, 16), 9.0, "12 rows and 5024 inputs needs 4 data and 10 weight banks"),
        (2000, (32, 32, 16), 9.0, "has 2000 rows, expected a multiple of 4 from 12 to 1020"),
        (12, (32, 32, 4112), 9.0, "has 4112 columns, expected a multiple of 16 up to 4096"),
        (0, (32, 32, 16), 9.0, "has 0 rows, expected at least 1"),
        (12, (32, 32, 16), np.inf, "the largest norm of a row is inf, expected a positive number"),
        (12, (32, 32, 16), 1e6, "rows of norm 1e.06 can reach .* leave it to the CPU"),
    ],
)
def test_a_block_that_does_not_fit_is_refused(rows, shape, norm, message):
    with pytest.raises(NpuError, match=message):
        feed_forward(rows, *weights(*shape), norm)


def test_weights_that_do_not_belong_together_are_refused():
    gate, up, down = weights(32, 64, 16)
    with pytest.raises(NpuError, match=r"gate float16 \[64, 32\], up float16 \[32, 32\]"):
        feed_forward(12, gate, up[:32], down, 9.0)
    with pytest.raises(NpuError, match=r"down float32 \[16, 64\], expected float16"):
        feed_forward(12, gate, up, down.astype(np.float32), 9.0)
    up[3, 3] = np.nan
    with pytest.raises(
        NpuError, match="the weights up of a feed-forward block hold an infinity or no number"
    ):
        feed_forward(12, gate, up, down, 9.0)


@pytest.mark.parametrize("bad", [2.0, np.inf, np.nan])
def test_a_row_longer_than_calibration_saw_is_refused(bad):
    operator = feed_forward(12, *weights(32, 64, 16), 6.0).operator
    x = halves(np.ones((12, 32)))
    operator.packed({"x": x})
    x[4] = bad
    with pytest.raises(NpuError, match=r"row 4 of a feed-forward block has a norm of .*, expected at most 6"):
        operator.packed({"x": x})
