"""Two stages of heat: the closed form, the coolings that are known, and names."""

import math

import pytest

from rockledge.board.boards import find_board
from rockledge.board.rk3588_heat import COOLINGS
from rockledge.board.thermal import Cooling, Heat, Stage, settled
from rockledge.errors import UsageError

ONE = Cooling("one", "", Stage(0.5, 4.0), Stage(4.0, 100.0), "", "assumed")


def test_a_step_is_the_sum_of_two_exponentials() -> None:
    found = Heat().after(ONE, 6.0, 30.0).kelvins
    assert found == pytest.approx(3.0 * (1 - math.exp(-30 / 4)) + 24.0 * (1 - math.exp(-0.3)))


def test_many_short_times_are_one_long_one() -> None:
    heat = Heat(1.0, 2.0)
    for _ in range(300):
        heat = heat.after(ONE, 5.0, 0.1)
    once = Heat(1.0, 2.0).after(ONE, 5.0, 30.0)
    assert heat.fast == pytest.approx(once.fast)
    assert heat.slow == pytest.approx(once.slow)


def test_it_settles() -> None:
    assert Heat().after(ONE, 5.0, 1e4).kelvins == pytest.approx(settled(ONE, 5.0).kelvins)
    assert settled(ONE, 5.0).kelvins == 5.0 * ONE.kelvin_per_watt


def test_time_constants_are_those_of_the_two_stages() -> None:
    for cooling in COOLINGS.values():
        assert 2 <= cooling.fast.seconds <= 8
        assert 60 <= cooling.slow.seconds <= 200
        assert cooling.source
    order = ["fan", "heat-sink", "passive"]
    assert sorted(order, key=lambda name: COOLINGS[name].kelvin_per_watt) == order


def test_scaled() -> None:
    found = ONE.scaled(1.3, 0.7)
    assert found.slow.kelvin_per_watt == pytest.approx(5.2)
    assert found.slow.seconds == pytest.approx(91.0)


def test_an_unknown_cooling_is_told_the_others() -> None:
    with pytest.raises(UsageError, match="unknown cooling 'water', expected one of passive, "):
        find_board("rk3588-8gb").cooling("water")
