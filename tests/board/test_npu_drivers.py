"""What a driver changes: mainline's clock, and nothing of what the CPU does."""

from rockledge.board.boards import find_board
from rockledge.board.npu_drivers import DRIVER_FACTS, MAINLINE_PATCHED_HZ, board_with_driver

BOARD = find_board("rk3588-8gb")


def test_the_boards_facts_are_those_of_the_vendors_driver() -> None:
    assert board_with_driver(BOARD, "rknpu") == BOARD
    assert BOARD.value("npu_hz") == 1e9


def test_mainline_leaves_the_clock_where_it_is_at_boot() -> None:
    under = board_with_driver(BOARD, "rocket")
    assert under.value("npu_hz") == 2e8
    changed = {name for name in BOARD.facts if under.facts[name] != BOARD.facts[name]}
    assert changed == set(DRIVER_FACTS["rocket"])
    assert all(fact.source and fact.kind == "published" for fact in DRIVER_FACTS["rocket"].values())


def test_what_the_driver_says_of_the_clock_counts() -> None:
    assert board_with_driver(BOARD, "rocket", MAINLINE_PATCHED_HZ).value("npu_hz") == 6e8
    assert board_with_driver(BOARD, "rknpu", 3e8).facts["npu_hz"].kind == "measured here"
