"""Activations, gate x up and the residual on the emulator: NumPy's bits, within their stated bounds."""

from math import erfc, sqrt

import numpy as np
import pytest
from tests.npu.programs.operator_runs import halves, outputs_of

from rockledge.errors import NpuError
from rockledge.npu.lut import every_half
from rockledge.npu.programs.activations import exp, gelu, multiply, residual_add, silu


def block(x, rows=16):
    """All of `x`, repeated to fill [rows, columns]."""
    return np.resize(x, (rows, -(-len(x) // rows)))


def exact_silu(x):
    return x / (1 + np.exp(-x))


def exact_gelu(x):
    return x * np.vectorize(erfc)(-x / sqrt(2)) / 2


@pytest.mark.parametrize("low, high", [(-12, 15), (-1, 1), (-2.5, 7)])
@pytest.mark.parametrize(
    "make, exact, floor", [(silu, exact_silu, 7e-4), (gelu, exact_gelu, 3.5e-4)], ids=["silu", "gelu"]
)
def test_an_activation_is_within_its_bound_on_every_fp16_of_its_range(make, exact, floor, low, high):
    x = block(every_half(low, high))
    want = exact(x.astype(np.float64))
    for found in outputs_of(make(*x.shape, low, high), x=x):
        assert (np.abs(found - want) <= floor + np.abs(want) / 1024).all()


@pytest.mark.parametrize("make, reach", [(silu, 12), (gelu, 5)])
def test_an_activation_beyond_a_range_that_covers_its_tails_is_safe(make, reach):
    x = halves([[-65504, -1000, -reach - 1, reach + 1, 1000, 65504, 0, -0.0]])
    want = np.maximum(x.astype(np.float64), 0)
    for found in outputs_of(make(1, 8, -reach, reach), x=x):
        assert (np.abs(found - want) <= 7e-4 + want / 1024).all()


@pytest.mark.parametrize("make, name", [(silu, "SiLU"), (gelu, "GELU")])
@pytest.mark.parametrize("bad", [3.01, -4.0, np.inf, np.nan])
def test_an_activation_outside_a_narrow_range_is_refused(make, name, bad):
    with pytest.raises(NpuError, match=rf"an input of {name} is .*, expected -3 to 3, the range"):
        make(1, 2, -3, 2).packed({"x": halves([[0, bad]])})


def test_a_range_that_is_none_is_refused():
    with pytest.raises(NpuError, match="the range of SiLU is 3 to -3, expected two rising numbers"):
        silu(1, 8, 3, -3)


def test_exp_is_within_its_bound_on_every_fp16_up_to_0():
    x = block(every_half(-65504, 0), 24)
    want = np.exp(x.astype(np.float64))
    for found in outputs_of(exp(*x.shape), x=x):
        assert (np.abs(found - want) <= want / 256 + 3e-7).all()
        assert (found[x == 0] == 1).all()


def test_exp_of_a_number_above_0_is_refused():
    with pytest.raises(NpuError, match=r"an input of exp is 0\.5, expected -16 to 0"):
        exp(1, 1).packed({"x": halves([[0.5]])})


@pytest.mark.parametrize(
    "make, names, operation",
    [(multiply, ("gate", "up"), np.multiply), (residual_add, ("x", "delta"), np.add)],
    ids=["gate times up", "residual"],
)
def test_two_tensors_are_combined_with_one_rounding(make, names, operation):
    random = np.random.default_rng(0)
    arrays = {name: halves(random.standard_normal((21, 1710)) * 20) for name in names}
    operator = make(21, 1710)
    assert len(operator.program.starts) == 2  # more than one block
    want = operation(*(arrays[name].astype(np.float64) for name in names))
    for found in outputs_of(operator, **arrays):
        np.testing.assert_array_equal(found, want.astype(np.float16))


@pytest.mark.parametrize("make, names", [(multiply, ("gate", "up")), (residual_add, ("x", "delta"))])
def test_results_beyond_fp16_are_refused(make, names):
    large = halves([[40000]])
    with pytest.raises(NpuError, match="beyond 65504, the largest fp16"):
        make(1, 1).packed(dict.fromkeys(names, large))


def test_inputs_that_are_missing_or_of_another_shape_are_refused():
    operator = multiply(2, 8)
    one = halves(np.ones((2, 8)))
    with pytest.raises(NpuError, match="takes gate, up, but up is missing"):
        operator.packed({"gate": one})
    with pytest.raises(NpuError, match=r"up of gate times up is float32 \[2, 8\], expected float16 \[2, 8\]"):
        operator.packed({"gate": one, "up": one.astype(np.float32)})
    with pytest.raises(NpuError, match=r"float16 \[3, 8\]"):
        operator.twin({"gate": one, "up": halves(np.ones((3, 8)))})


@pytest.mark.parametrize("columns", [4, 8])
def test_a_narrower_or_wider_input_is_refused(columns):
    """Neither padding nor what stands in its place counts as given."""
    operator = multiply(1, 5)
    arrays = {"gate": halves(np.ones((1, 5))), "up": halves(np.ones((1, columns)))}
    for of in (operator.twin, operator.packed):
        with pytest.raises(NpuError, match=rf"float16 \[1, {columns}\], expected float16 \[1, 5\]"):
            of(arrays)


@pytest.mark.parametrize("rows, columns", [(0, 8), (-1, 8), (8, 0)])
def test_an_operator_without_elements_is_refused(rows, columns):
    with pytest.raises(NpuError, match=f"{rows} rows and {columns} columns, expected at least 1"):
        silu(rows, columns, -3, 3)


def test_a_result_that_no_program_wrote_is_noticed():
    operator = silu(4, 16, -3, 3)
    written = {role: np.full(operator.sizes[role], 0xFF, np.uint8) for role in ("scratch", "output")}
    with pytest.raises(NpuError, match="left its results untouched"):
        operator.taken(written)
    for data in written.values():
        data[:-2] = 0
    with pytest.raises(NpuError, match="left its results untouched"):
        operator.taken(written)
