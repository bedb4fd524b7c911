"""int8 products that the NPU requantises: exact by the fitted rule, within the fit's own error."""

import numpy as np
import pytest

from rockledge.errors import NpuError
from rockledge.npu.programs.requantised_product import requantised_product
from rockledge.npu.requantise import Rounding, Rule, fit_channels, fit_tensor
from rockledge_npu_lab.emulation.options import NegativeShift, Options
from rockledge_npu_lab.linting.check import lint
from rockledge_npu_lab.verify.emulated_operator import run_operator

RULES = [Rule(rounding, away) for rounding in Rounding for away in (False, True)]
ADDRESSES = {"program": 1 << 20, "input": 1 << 24, "weight": 2 << 24, "output": 3 << 24}


def case(rows, columns, inputs):
    random = np.random.default_rng(rows)
    x = random.integers(-128, 128, (rows, inputs)).astype(np.int8)
    kernels = random.integers(-128, 128, (columns, inputs)).astype(np.int8)
    sums = x.astype(np.int64) @ kernels.astype(np.int64).T
    return x, kernels, sums, random


def options(rule):
    return Options(requantise=rule.rounding)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.rounding.value}, away {rule.ties_away}")
@pytest.mark.parametrize("rows, columns, inputs", [(1, 32, 32), (21, 100, 200), (64, 64, 512)])
@pytest.mark.parametrize("each", [False, True], ids=["tensor", "channels"])
def test_a_requantised_product_is_exact_by_its_rule(rule, rows, columns, inputs, each):
    x, kernels, sums, random = case(rows, columns, inputs)
    low, high = int(sums.min()), int(sums.max())
    bias = random.normal(0, 500, columns)
    real = np.full(columns, 100.0 / max(-low, high))
    if each:
        real *= np.exp(random.normal(0, 0.5, columns))
        fit = fit_channels(real, low, high, bias=bias, offset=-7, rule=rule)
    else:
        fit = fit_tensor(float(real[0]), low, high, bias=bias, offset=-7, rule=rule)
    operator = requantised_product(rows, kernels, fit)
    found, flags = run_operator(operator, {"x": x}, options(rule))
    assert flags == ()
    np.testing.assert_array_equal(found, operator.twin({"x": x}, rule))
    want = np.clip((sums + bias) * real - 7, -128, 127)
    assert (np.abs(found - want) <= fit.largest_error + 1e-9).all()
    assert lint(operator.program.at(ADDRESSES).tolist()) == []


@pytest.mark.parametrize("negative", list(NegativeShift))
def test_the_shift_of_negative_sums_does_not_matter(negative):
    x, kernels, sums, _ = case(8, 32, 64)
    fit = fit_channels(np.full(32, 0.001), int(sums.min()), int(sums.max()))
    operator = requantised_product(8, kernels, fit)
    found, _ = run_operator(operator, {"x": x}, Options(negative_shift=negative))
    np.testing.assert_array_equal(found, operator.twin({"x": x}, Rule()))


def test_what_does_not_fit_one_program_is_refused():
    fit = fit_tensor(0.01, -100, 100)
    with pytest.raises(NpuError, match="a tile has 1024 rows"):
        requantised_product(1021, np.zeros((32, 32), np.int8), fit)
    with pytest.raises(NpuError, match="a fit has 3 channels, but there are 32 columns"):
        requantised_product(4, np.zeros((32, 32), np.int8), fit_channels(np.ones(3), -1, 1))
    operator = requantised_product(4, np.zeros((32, 32), np.int8), fit)
    with pytest.raises(NpuError, match=r"is int16 \[4, 32\], expected int8 \[4, 32\]"):
        operator.packed({"x": np.zeros((4, 32), np.int16)})
    with pytest.raises(NpuError, match="left its output untouched"):
        operator.taken({"output": np.full(operator.sizes["output"], 0xFF, np.uint8)})
