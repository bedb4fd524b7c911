"""Whole numbers in files of the kernel, and the readers of such files before ones that lie."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.virtual_board.works import eight_billion

from rockledge.board.rk3588_heat import COOLINGS
from rockledge.runtime.board_sysfs import BoardSysfs
from rockledge.runtime.npu_system import findings, look
from rockledge.runtime.slow_settings import slow_settings
from rockledge.runtime.sysfs_number import sysfs_count, sysfs_number
from rockledge.serve.console.temperatures import temperatures
from rockledge.virtual_board.board import VirtualBoard
from rockledge.virtual_board.sysfs import VirtualSysfs

LIES = ["", "nan", "²", "9" * 5000, "٣٤٠٠٠", "1_000", "45000hot", "45.5", "0x10", "\ud800", "-", "\0"]


@given(st.integers(-(2**63), 2**64))
def test_what_a_kernel_prints_is_read(number: int) -> None:
    assert sysfs_number(f"{number}\n") == (number if abs(number) < 10**19 else None)


@pytest.mark.parametrize("text", LIES)
def test_anything_else_is_no_number(text: str) -> None:
    assert sysfs_number(text) is None


def test_a_count_is_not_below_zero() -> None:
    assert (sysfs_count("-1"), sysfs_count("0"), sysfs_count(" 7\n")) == (None, 0, 7)


@pytest.mark.parametrize("text", LIES)
def test_no_file_of_a_board_ends_who_reads_it(text: str, tmp_path: Path) -> None:
    """What asks once a second must not end with an exception: nobody would hold the board any more."""
    VirtualSysfs(tmp_path, VirtualBoard(eight_billion(), COOLINGS["passive"], 45.0))
    board = BoardSysfs(tmp_path)
    for file in [file for file in (tmp_path / "sys").rglob("*") if file.is_file() and file.name != "type"]:
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert (board.celsius(), board.throttled(), board.npu_clocks()) == (None, False, ())
    assert findings(look(tmp_path), "rknpu") == []
    assert slow_settings(tmp_path) == []
    assert temperatures(tmp_path / "sys/class/thermal") == []


@pytest.mark.parametrize("state", ["1", ""])
def test_a_state_is_read_once(state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has gone between two reads of it is no number, and no exception."""
    VirtualSysfs(tmp_path, VirtualBoard(eight_billion(), COOLINGS["passive"], 45.0))
    board = BoardSysfs(tmp_path)
    answers = iter([state])
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: next(answers, ""))
    assert board.throttled() == (state == "1")
