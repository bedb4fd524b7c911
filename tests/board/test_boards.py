"""Boards by name and by the memory a machine sees."""

import pytest

from rockledge.board.boards import board_with, find_board
from rockledge.errors import UsageError


@pytest.mark.parametrize(
    "seen_gib, name",
    [(1.9, "rk3588-4gb"), (3.7, "rk3588-4gb"), (7.75, "rk3588-8gb"), (8, "rk3588-8gb"), (15.5, "rk3588-16gb"),
     (64, "rk3588-32gb")],
)  # fmt: skip
def test_a_system_sees_less_than_is_soldered(seen_gib: float, name: str) -> None:
    assert board_with(int(seen_gib * 2**30)).name == name


def test_unknown_boards_are_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="rk3588-16gb"):
        find_board("rk3576-8gb")
