"""The sysfs of a virtual board is what readers of a real one find, and takes what they write."""

from pathlib import Path

from tests.virtual_board.works import CLOCKS, eight_billion

from rockledge.board.levers import Demand
from rockledge.board.rk3588_heat import COOLINGS
from rockledge.runtime.board_sysfs import BoardSysfs
from rockledge.runtime.npu_system import look
from rockledge.virtual_board.board import VirtualBoard
from rockledge.virtual_board.sysfs import VirtualSysfs

BATCH = Demand(4, False)


def made(root: Path) -> tuple[VirtualBoard, VirtualSysfs]:
    board = VirtualBoard(eight_billion(), COOLINGS["passive"], 45.0)
    return board, VirtualSysfs(root, board)


def test_it_is_read_as_a_board(tmp_path: Path) -> None:
    board, _ = made(tmp_path)
    sysfs = BoardSysfs(tmp_path)
    assert sysfs.celsius() == round(board.sensed * 1000) / 1000
    assert not sysfs.throttled()
    assert sysfs.npu_clocks() == CLOCKS
    system = look(tmp_path)
    assert system.soc == "rockchip,rk3588"
    assert system.memory is not None
    assert system.memory.current == system.memory.highest == 2_112_000_000
    assert [clock.current for clock in system.processors] == [2_208_000_000, 2_208_000_000]


def test_throttling_shows(tmp_path: Path) -> None:
    board, tree = made(tmp_path)
    while board.throttle.state == 0:
        board.advance(1.0, eight_billion().full, BATCH)
        assert board.seconds < 3600
    tree.update()
    assert BoardSysfs(tmp_path).throttled()
    assert look(tmp_path).processors[0].current == 1_008_000_000


def test_what_is_written_for_the_npu_holds(tmp_path: Path) -> None:
    board, tree = made(tmp_path)
    reading = Demand(0, True)
    fast = board.advance(1.0, eight_billion().full, reading).speed
    assert BoardSysfs(tmp_path).set_npu_clock(3e8)
    tree.update()
    slow = board.advance(1.0, eight_billion().full, reading).speed
    assert slow.prompt_tok_s < fast.prompt_tok_s
    assert slow.watts < fast.watts
