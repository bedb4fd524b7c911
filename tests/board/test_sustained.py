"""The formula of speed after an hour against a virtual board that runs it, and its edges by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
from tests.virtual_board.works import eight_billion

from rockledge.board.governor import TARGET_CELSIUS
from rockledge.board.levers import Demand, Rung, Setting, Work, speed
from rockledge.board.rk3588_heat import COOLINGS, POWER
from rockledge.board.sustained import kept, sustained
from rockledge.board.thermal import settled
from rockledge.virtual_board.board import VirtualBoard
from rockledge.virtual_board.sustained import Second, constant, governed

WARM_CELSIUS = 70.0
CASES = [
    ("passive", 45.0, Demand(1, False)),
    ("passive", 45.0, Demand(4, False)),
    ("passive", 45.0, Demand(0, True)),
    ("bare", 35.0, Demand(4, False)),
    ("fan", 45.0, Demand(4, False)),
]


def unthrottled() -> Work:
    """At the clock that a virtual board has while nothing throttles it."""
    work = eight_billion()
    return work.at_clock(work.board.value("unthrottled_cpu_hz"))


def warm_board(cooling: str, ambient: float) -> VirtualBoard:
    """As after a while at work: an hour from there is minutes."""
    board = VirtualBoard(eight_billion(), COOLINGS[cooling], ambient)
    board.heat = settled(COOLINGS[cooling], (WARM_CELSIUS - ambient) / COOLINGS[cooling].kelvin_per_watt)
    return board


def share(seconds: list[Second], demand: Demand) -> float:
    """Of the full speed, once it has settled."""
    work = unthrottled()
    full, late = speed(work, work.full, demand), seconds[600:]
    done = sum(one.decode_tok_s + one.prompt_tok_s for one in late) / len(late)
    return done / (full.decode_tok_s + full.prompt_tok_s)


@pytest.mark.parametrize(("cooling", "ambient", "demand"), CASES, ids=str)
def test_the_formula_is_what_a_simulated_board_comes_to(cooling: str, ambient: float, demand: Demand) -> None:
    found = sustained(unthrottled(), demand, COOLINGS[cooling], ambient, TARGET_CELSIUS)
    seconds = 1500.0
    held = list(governed(warm_board(cooling, ambient), eight_billion(), lambda _: demand, seconds))
    assert found.governed == pytest.approx(share(held, demand), abs=0.03)
    full = eight_billion().full
    free = list(constant(warm_board(cooling, ambient), full, lambda _: demand, seconds))
    assert found.ungoverned == pytest.approx(share(free, demand), abs=0.03)


def test_a_cool_room_costs_nothing() -> None:
    found = sustained(unthrottled(), Demand(1, False), COOLINGS["fan"], 20.0, TARGET_CELSIUS)
    assert found.governed == found.ungoverned == 1.0
    # By hand: 0.83 + 1.04 kelvins a watt.
    assert found.celsius == pytest.approx(20.0 + 1.87 * (POWER.idle.value + found.watts))


@pytest.mark.parametrize("share_of_throttled", [0.5, 1.0])
def test_a_chip_that_is_no_faster_than_throttled_loses_nothing_by_it(share_of_throttled: float) -> None:
    """Such as one whose governor was powersave when its clock was measured."""
    work = eight_billion()
    slow = work.at_clock(share_of_throttled * work.board.value("throttled_cpu_hz"))
    found = sustained(slow, Demand(4, True), COOLINGS["bare"], 70.0, TARGET_CELSIUS)
    assert found.celsius > work.board.value("passive_trip_celsius")
    assert found.ungoverned == 1.0
    assert 0 < found.governed <= 1


def test_a_worse_cooling_and_a_warmer_room_never_leave_more() -> None:
    demand = Demand(4, False)
    for better, worse in (("fan", "heat-sink"), ("heat-sink", "passive")):
        lefts = [
            [
                sustained(unthrottled(), demand, COOLINGS[name], ambient, TARGET_CELSIUS)
                for name in (better, worse)
            ]
            for ambient in (25.0, 45.0, 60.0)
        ]
        for good, bad in lefts:
            assert bad.governed <= good.governed
            assert bad.ungoverned <= good.ungoverned
        for cool, warm in pairwise(lefts):
            assert warm[1].governed <= cool[1].governed


def test_between_two_rungs_their_mean_is_kept() -> None:
    setting = Setting(4, 1.0, 0.0, 1)
    rungs = [Rung(setting, 1.0, 6.0), Rung(replace(setting, threads=2), 0.8, 4.0)]
    assert kept(rungs, 9.0) == 1.0
    assert kept(rungs, 5.0) == pytest.approx(0.9)
    assert kept(rungs, 1.0) == 0.8  # nothing below is known
