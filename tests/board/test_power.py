"""Watts add up to what was published of whole boards."""

from tests.virtual_board.works import eight_billion

from rockledge.board.boards import find_board
from rockledge.board.levers import Demand, speed
from rockledge.board.power import memory_watts, npu_watts, voltage_factor
from rockledge.board.rk3588_heat import BIG_VOLTS, NPU_VOLTS, POWER


def test_decode_is_inside_what_was_published_over_idle() -> None:
    low, high = find_board("rk3588-8gb").facts["cpu_decode_watts"].spread or (0, 0)
    work = eight_billion()
    assert low - 0.2 <= speed(work, work.full, Demand(1, False)).watts <= high


def test_npu_decode_is_inside_what_was_published_over_idle() -> None:
    board = find_board("rk3588-8gb")
    low, high = board.facts["npu_decode_watts"].spread or (0, 0)
    assert low <= npu_watts(POWER, 1e9, 1.0) + memory_watts(POWER, board.value("npu_read_bandwidth")) <= high


def test_below_some_clock_nothing_is_saved_by_being_slower() -> None:
    assert POWER.slowest_hz == 1.2e9


def test_a_lower_voltage_counts_twice() -> None:
    assert voltage_factor(BIG_VOLTS, 2.4e9) == 1.0
    assert abs(voltage_factor(BIG_VOLTS, 1.2e9) - 0.5 * 0.675**2) < 1e-12
    assert voltage_factor(NPU_VOLTS, 3e8) == 0.3 * (0.7 / 0.85) ** 2
    assert voltage_factor(BIG_VOLTS, 9e9) == 1.0
