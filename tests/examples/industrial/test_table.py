"""The table of the example: arithmetic that can be followed by hand."""

import pytest

from examples.industrial.chain import (
    ALONE,
    DISTILLED,
    FURTHER,
    PRUNED,
    TEACHER,
    UNADAPTED,
    aware,
    plain,
)
from examples.industrial.measure import Measured
from examples.industrial.table import Row, conclusions, difference, table


def _measured(loss: float, general: float = 3.0) -> Measured:
    return Measured([loss, loss + 1.0], [general] * 2, [True, False], [True] * 4, 2_000_000, None)


def test_a_difference_is_paired_by_window() -> None:
    found = difference([1.0, 3.0, 5.0], [0.5, 2.0, 3.5])
    assert found.mean == pytest.approx(1.0)
    assert found.error == pytest.approx(0.5 / 3**0.5)


def test_conclusions_are_the_shares_that_the_goals_are_about() -> None:
    losses = {TEACHER: 3.0, PRUNED: 4.0, DISTILLED: 3.1, ALONE: 3.3, UNADAPTED: 3.2, FURTHER: 3.0}
    losses |= {plain("4.25"): 3.1, aware("4.25"): 3.04, plain("3.25"): 3.5, aware("3.25"): 3.1}
    models = {name: _measured(loss) for name, loss in losses.items()}
    models[ALONE] = Measured([3.3, 4.4], [3.2, 3.2], [], [], 0, None)
    said = conclusions(models)
    assert "gap of 1.000 nats" in said[0]
    assert "recovered 90% of it" in said[0]
    assert "+0.2500 nats better on the domain (+5.0 standard errors)" in said[1]
    assert "+18.1% in general perplexity" in said[1]  # 1 - exp(-0.2)
    assert "0.40 times" in said[3]
    assert "0.20 times" in said[4]


def test_a_row_has_intervals_and_leaves_out_what_was_not_measured() -> None:
    head, _, line = table([Row("teacher", _measured(3.0), None)])
    assert head.count("|") == line.count("|")
    assert "| teacher | 2.0 | 33.12 (20.09-54.60) |" in line  # exp of 3.5, 3 and 4
    assert "50.0% (9-91)" in line  # Wilson's interval of 1 of 2
    assert line.endswith("|  |  |")
