"""Solved tables: near the function on every fp16 of their range, free of the faults that hardware has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu.lut import (
    errors,
    every_half,
    gauss_table,
    half_exp_table,
    look_up,
    power_tables,
    sigmoid_table,
    table_faults,
)

TABLES = (
    sigmoid_table(-20, 20),
    sigmoid_table(-2, 1),
    gauss_table(-20, 20),
    gauss_table(-1, 1),
    half_exp_table(),
    *power_tables(-1.0, 1, 128),
    *power_tables(-1.0, 1, 4096),
    *power_tables(-0.5, 0.01, 1),
    *power_tables(-0.5, 0.125, 30000),
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.name} {table.low:.3g} {table.high:.3g}")
def test_tables_have_no_fault_by_construction(table):
    both = np.array([table.negative, table.positive])
    assert both.shape == (2, 513)
    assert both.min() >= 1
    assert both.max() <= 32767
    assert (np.diff(both) != 0).all()
    assert table.offset >= 0
    assert list(table_faults(both, table.offset)) == []
    # The side follows the sign of x: an addition only where x has one sign.
    assert table.addition == 0 or table.low > 0


@pytest.mark.parametrize(
    ("table", "bound"),
    [(sigmoid_table(-20, 20), 3e-4), (gauss_table(-20, 20), 3e-4), (half_exp_table(), 3.1e-4)],
    ids=["SiLU", "GELU", "exp"],
)
def test_gates_and_exp_are_within_half_a_rounding_and_a_little(table, bound):
    largest, mean = errors(table)
    assert largest <= bound
    assert mean <= 1e-4


@pytest.mark.parametrize("power", [-1.0, -0.5])
@pytest.mark.parametrize("low, high", [(1, 100), (0.01, 1), (1, 4096), (2, 30000), (1, 1)])
def test_powers_are_within_one_percent_or_five_where_they_are_coarse(power, low, high):
    tables = power_tables(power, low, high)
    x = every_half(low, high)
    found = np.prod([look_up(table, x.astype(np.float32)).astype(np.float64) for table in tables], axis=0)
    wrong = np.abs(found / x.astype(np.float64) ** power - 1)
    assert wrong.max() <= (0.01 if high / low <= 128 else 0.02 if high / low <= 128**2 else 0.05)


@settings(max_examples=15, deadline=None)
@given(st.floats(-15, -0.01), st.floats(0.01, 15))
def test_a_finer_range_never_has_a_worse_gate(low, high):
    table = sigmoid_table(low, high)
    x = np.linspace(low, high, 999)
    found = look_up(table, x.astype(np.float32))
    assert np.abs(found - 1 / (1 + np.exp(-x))).max() <= 9e-5


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, 1.0, "the range of the reciprocal is 0 to 1, expected numbers from 0.000488"),
        (2.0, 1.0, "is 2 to 1"),
        (1.0, 1e6, "is 1 to 1e[+]06"),
        (0.01, 60000.0, "a ratio of 6.*, expected at most 262144"),
    ],
)
def test_ranges_of_powers_that_no_tables_hold_are_refused(low, high, message):
    with pytest.raises(NpuError, match=message):
        power_tables(-1.0, low, high)


def test_inputs_outside_a_table_are_refused_where_nothing_proves_them_safe():
    (table,) = power_tables(-1.0, 1.0, 100.0)
    for bad in (0.5, 101.0, np.nan):
        with pytest.raises(NpuError, match=r"an input of the reciprocal is .*, expected 1 to 100, the range"):
            table.check(np.array([2.0, bad]))
    table.check(np.array([1.0, 100.0]))
