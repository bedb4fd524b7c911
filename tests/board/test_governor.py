"""The governor on simulated boards: it holds the target, costs little, and does not believe every sensor."""

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.virtual_board.works import eight_billion

from rockledge.board.governor import TARGET_CELSIUS, Reading, State, govern, safe_watts
from rockledge.board.levers import Demand, Setting, Work, ladder, most_watts, speed
from rockledge.board.rk3588_heat import COOLINGS, POWER
from rockledge.virtual_board.board import VirtualBoard
from rockledge.virtual_board.sustained import Second, constant, governed, sensed

HOUR = 3600.0
LOADS = [Demand(1, False), Demand(4, False), Demand(4, True), Demand(0, True)]
GOAL_COOLINGS = ["passive", "heat-sink", "fan"]


def board_of(work: Work, cooling: str, ambient: float, scale: tuple[float, float] = (1, 1)) -> VirtualBoard:
    return VirtualBoard(work, COOLINGS[cooling].scaled(*scale), ambient)


def hour(
    cooling: str, ambient: float, load: Demand, scale: tuple[float, float] = (1, 1), seconds: float = HOUR
) -> list[Second]:
    work = eight_billion()
    return list(governed(board_of(work, cooling, ambient, scale), work, lambda _: load, seconds))


def work_done(seconds: list[Second], load: Demand) -> float:
    """Speed as a share of that with nothing held back, the mean of answers and prompts."""
    full = speed(eight_billion().at_clock(2.208e9), eight_billion().full, load)
    parts = []
    if full.decode_tok_s:
        parts.append(sum(one.decode_tok_s for one in seconds) / len(seconds) / full.decode_tok_s)
    if full.prompt_tok_s:
        parts.append(sum(one.prompt_tok_s for one in seconds) / len(seconds) / full.prompt_tok_s)
    return sum(parts) / len(parts)


def best_constant(cooling: str, ambient: float, load: Demand, scale: tuple[float, float] = (1, 1)) -> float:
    """Of all constant settings the most work, without passing the target within the hour."""
    work, best = eight_billion().at_clock(2.208e9), 0.0
    full = speed(work, work.full, load)
    for threads, hz, sequences in itertools.product((1, 2, 3, 4), work.npu_clocks, (1, 2, 3, 4)):
        found = speed(work, Setting(threads, 1.0, hz, sequences), load)
        heat = COOLINGS[cooling].scaled(*scale).kelvin_per_watt * (POWER.idle.value + found.watts)
        if ambient + heat <= TARGET_CELSIUS:
            parts = [found.decode_tok_s / full.decode_tok_s] if full.decode_tok_s else []
            parts += [found.prompt_tok_s / full.prompt_tok_s] if full.prompt_tok_s else []
            best = max(best, sum(parts) / len(parts))
    return best


@pytest.mark.parametrize("load", LOADS, ids=str)
@pytest.mark.parametrize("ambient", [25.0, 45.0])
@pytest.mark.parametrize("cooling", GOAL_COOLINGS)
def test_the_goals(cooling: str, ambient: float, load: Demand) -> None:
    found = hour(cooling, ambient, load)
    assert max(one.highest for one in found) <= TARGET_CELSIUS + 2
    assert found[-1].throttled == 0
    assert work_done(found, load) >= 0.95 * best_constant(cooling, ambient, load)
    held_back = any(one.setting != eight_billion().full for one in found)
    if held_back:  # then it is at the target, not far below
        late = [one.celsius for one in found[1200:]]
        assert min(late) >= TARGET_CELSIUS - 2


@pytest.mark.parametrize("load", [LOADS[1], LOADS[3]], ids=str)
@pytest.mark.parametrize("scale", [(0.7, 0.7), (0.7, 1.3), (1.3, 0.7), (1.3, 1.3)], ids=str)
def test_the_goals_with_constants_that_are_wrong(scale: tuple[float, float], load: Demand) -> None:
    found = hour("passive", 45.0, load, scale)
    assert max(one.highest for one in found) <= TARGET_CELSIUS + 2
    assert found[-1].throttled == 0
    assert work_done(found, load) >= 0.95 * best_constant("passive", 45.0, load, scale)


def test_two_threads_that_decode_as_fast_as_four_are_not_mixed_with_them() -> None:
    """4 bits, one answer: the published rate of memory is reached by two A76."""
    late = hour("passive", 45.0, LOADS[0])[1200:]
    assert {one.setting.threads for one in late} == {1, 2}


def test_ungoverned_it_oscillates_as_published() -> None:
    """Between 2208 and 1008 MHz at 73 to 75 °C (ThomasKaiser/sbc-bench results/4qJG.txt)."""
    work = eight_billion()
    found = list(constant(board_of(work, "passive", 45.0), work.full, lambda _: LOADS[1], HOUR))
    late = found[1200:]
    assert {one.cpu_hz for one in late} == {2.208e9, 1.008e9}
    assert min(one.celsius for one in late) >= 72.5
    assert max(one.highest for one in late) <= 76
    assert late[-1].throttled - late[0].throttled > 30


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(GOAL_COOLINGS),
    st.floats(15, 45),
    st.lists(
        st.tuples(st.sampled_from([*LOADS, Demand(0, False)]), st.floats(20, 600)), min_size=1, max_size=5
    ),
    st.sampled_from([0.7, 1.0, 1.3]),
    st.sampled_from([0.7, 1.0, 1.3]),
)
def test_whatever_the_board_and_the_load_it_never_throttles(
    cooling: str, ambient: float, loads: list[tuple[Demand, float]], resistance: float, capacity: float
) -> None:
    work = eight_billion()
    times = list(itertools.accumulate(seconds for _, seconds in loads))

    def load(now: float) -> Demand:
        return next((one for (one, _), until in zip(loads, times, strict=True) if now < until), loads[-1][0])

    board = board_of(work, cooling, ambient, (resistance, capacity))
    found = list(governed(board, work, load, times[-1]))
    assert found[-1].throttled == 0
    assert max(one.highest for one in found) <= TARGET_CELSIUS + 2


def lying(lie: Callable[[VirtualBoard], float | None]) -> list[Second]:
    """Half an hour on a passive heat sink in a warm room, with a sensor that says this; the load rests for
    two minutes after ten."""
    work = eight_billion()
    board = board_of(work, "passive", 45.0)

    def read(board: VirtualBoard) -> Reading:
        honest = sensed(board)
        return Reading(honest.seconds, lie(board), honest.throttled)

    def load(now: float) -> Demand:
        return Demand(0, False) if 600 < now < 720 else Demand(4, False)

    return list(governed(board, work, load, 1800.0, sense=read))


@pytest.mark.parametrize(
    ("lie", "trouble"),
    [
        (lambda board: None, "it gives no possible temperature"),
        (lambda board: math.nan, "it gives no possible temperature"),
        (lambda board: -273.0, "it gives no possible temperature"),
        (lambda board: 1e6, "it gives no possible temperature"),
        (lambda board: 55.0, "its temperature does not move with the load"),
        (lambda board: None if board.seconds > 60 else board.sensed, "it gives no possible temperature"),
        (lambda board: 50.0 if board.seconds > 60 else board.sensed, "does not move with the load"),
        (lambda board: 100.0, "it stays hot, and the kernel holds no clock back"),
        (lambda board: 20.0 + 60.0 * (int(board.seconds) % 2), "its temperature jumps"),
    ],
    ids=["none", "nan", "too-cold", "too-hot", "stuck", "silent-later", "stuck-later", "stuck-hot", "jumps"],
)
def test_a_sensor_that_lies_leads_to_a_safe_setting(
    lie: Callable[[VirtualBoard], float | None], trouble: str
) -> None:
    found = lying(lie)
    assert any(trouble in one.trouble for one in found)
    late = found[1200:]
    assert all(one.trouble for one in late[-300:])
    assert max(one.highest for one in late[-300:]) <= TARGET_CELSIUS + 1


def test_a_kernel_that_throttles_at_a_low_temperature_is_believed() -> None:
    work = eight_billion()
    rungs, state = ladder(work, Demand(4, False)), State()
    for second in range(5):
        decision, state = govern(
            Reading(float(second), 50.0 + second / 10, throttled=True),
            state,
            rungs,
            most_watts=most_watts(work),
            safe=safe_watts(work.board, TARGET_CELSIUS),
        )
    assert "the kernel holds clocks back as if it were hot" in decision.trouble
    # the mean of two rungs is meant
    assert decision.watts <= 2 * safe_watts(work.board, TARGET_CELSIUS)


def test_a_sensor_that_the_kernel_contradicts_again_and_again_is_believed_ever_later() -> None:
    """One that says 10 K too little lets the chip throttle whenever it is believed again. In the first half
    minute of each time nothing tells it from an honest one."""
    found = lying(lambda board: board.sensed - 10.0)
    assert found[-1].throttled < 10
    begun = [now.seconds for last, now in itertools.pairwise(found) if now.trouble and not last.trouble]
    pauses = [later - sooner for sooner, later in itertools.pairwise(begun)]
    assert len(pauses) > 1
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]


def test_a_reason_stays_the_same_while_the_temperature_changes() -> None:
    """Each new one is a line in the log."""
    reasons = [one.trouble for one in lying(lambda board: board.sensed - 10.0)]
    assert sum(now != last for last, now in itertools.pairwise(reasons)) < 20


def test_one_bad_reading_changes_nothing_and_good_ones_are_believed_again() -> None:
    def glitch(board: VirtualBoard) -> float | None:
        if board.seconds in (300.0, 301.0):
            return None
        return 119.0 if board.seconds == 400.0 else board.sensed

    found = lying(glitch)
    assert not any(one.trouble for one in found[:390])
    assert found[401].trouble == "its temperature jumps"
    assert not any(one.trouble for one in found[440:])


def test_the_safe_setting_is_safe_on_every_known_cooling() -> None:
    for cooling in COOLINGS.values():
        watts = POWER.idle.value + safe_watts(eight_billion().board, TARGET_CELSIUS)
        assert 45.0 + cooling.kelvin_per_watt * watts <= TARGET_CELSIUS + 1e-9
