"""What published work leaves open does not carry an operator out of its bound, but for two points."""

from dataclasses import fields, replace
from enum import Enum

import numpy as np
import pytest
from tests.npu.programs.operator_runs import halves

from rockledge.npu.programs.activations import silu
from rockledge.npu.programs.norms import rmsnorm, seen
from rockledge.npu.programs.softmax import softmax
from rockledge_npu_lab.emulation.options import DEFAULT, BnOrder, Options, Subnormals
from rockledge_npu_lab.verify.emulated_operator import run_operator

# docs/npu.md says what they would change. The order of the second stage was measured on a board [H: GRN].
MATTER = {("subnormals", Subnormals.FLUSH), ("bn_order", BnOrder.ALU_FIRST)}
OTHERS = [
    (field.name, value)
    for field in fields(Options)
    if isinstance(field.default, Enum)
    for value in type(field.default)
    if value is not field.default and (field.name, value) not in MATTER
]
X = halves(np.random.default_rng(0).standard_normal((13, 129)) * 4)
WIDE = X.astype(np.float64)


def softmax_case():
    below = WIDE - WIDE.max(axis=1, keepdims=True)
    want = np.exp(below) / np.exp(below).sum(axis=1, keepdims=True)
    return softmax(13, 129), want, want * (1 / 128 - below / 2048) + 3e-7


def rmsnorm_case():
    want = WIDE / np.sqrt((WIDE**2).mean(axis=1, keepdims=True) + 1e-5)
    return rmsnorm(13, np.ones(129), 1e-5, seen(X)), want, np.abs(want) / 256 + 1.1e-6


def silu_case():
    want = WIDE / (1 + np.exp(-WIDE))
    return silu(13, 129, -20, 20), want, 7e-4 + np.abs(want) / 1024


CASES = {"softmax": softmax_case(), "rmsnorm": rmsnorm_case(), "silu": silu_case()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("option", "value"), OTHERS, ids=lambda x: x.value if isinstance(x, Enum) else x)
def test_softmax_rmsnorm_and_silu_are_within_their_bounds_under_every_option(name, option, value):
    operator, want, bound = CASES[name]
    found, _ = run_operator(operator, {"x": X}, replace(DEFAULT, **{option: value}))
    assert (np.abs(found.astype(np.float64) - want) <= bound).all()


@pytest.mark.parametrize("name", CASES)
def test_flushed_subnormals_cost_an_operator_no_more_than_themselves(name):
    operator, want, bound = CASES[name]
    found, _ = run_operator(operator, {"x": X}, replace(DEFAULT, subnormals=Subnormals.FLUSH))
    assert (np.abs(found.astype(np.float64) - want) <= bound + 2.0**-14).all()
