"""Boards by name, by the chip that a machine says it has, and by the memory that it sees."""

import pytest

from rockledge.board.boards import BOARDS, NPU_CORES, any_board, board_with, find_board, find_chip
from rockledge.board.memory import plan_memory
from rockledge.board.time import band_ms
from rockledge.errors import UsageError
from rockledge.synth import shape_config

ROCK_5B = ("radxa,rock-5b", "rockchip,rk3588")


@pytest.mark.parametrize(
    "compatible, seen_gib, name",
    [(ROCK_5B, 1.9, "rk3588-4gb"), (ROCK_5B, 3.7, "rk3588-4gb"), (ROCK_5B, 7.75, "rk3588-8gb"),
     (ROCK_5B, 8, "rk3588-8gb"), (ROCK_5B, 15.5, "rk3588-16gb"), (ROCK_5B, 64, "rk3588-32gb"),
     (("xunlong,orangepi-5", "rockchip,rk3588s"), 7.75, "rk3588-8gb"),
     (("raspberrypi,5-model-b", "brcm,bcm2712"), 7.9, "rpi5-8gb"),
     (("raspberrypi,5-model-b", "brcm,bcm2712"), 15.8, "rpi5-16gb"),
     (("armsom,sige5", "rockchip,rk3576"), 7.7, "rk3576-8gb")],
)  # fmt: skip
def test_a_system_sees_less_than_is_soldered(compatible: tuple[str, ...], seen_gib: float, name: str) -> None:
    chip = find_chip(compatible)
    assert chip is not None
    assert board_with(chip, int(seen_gib * 2**30)).name == name


@pytest.mark.parametrize("compatible", [(), ("linux,dummy-virt",), ("pine64,quartz64-a", "rockchip,rk3566")])
def test_a_chip_without_facts_is_not_guessed(compatible: tuple[str, ...]) -> None:
    assert find_chip(compatible) is None


def test_unknown_boards_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'rk3588-8g', expected one such as rk3588-8gb, "):
        find_board("rk3588-8g")
    with pytest.raises(UsageError, match="such as rpi5-"):
        any_board("rpi5")
    with pytest.raises(UsageError, match="rk3588-8gb"):
        any_board("beagle")


def test_where_nothing_of_ours_runs_the_reason_is_given() -> None:
    with pytest.raises(UsageError, match="Cortex-A72 cores have no int8 dot product"):
        find_board("rk3576-8gb")
    assert any_board("rk3576-8gb").chip.published


@pytest.mark.parametrize("name", [name for name, board in BOARDS.items() if not board.chip.refused])
def test_every_board_has_the_facts_of_memory_and_time(name: str) -> None:
    board = find_board(name)
    small = shape_config("135m")
    plan = plan_memory(board, small, 512, weights_bytes=80_000_000)
    assert (plan.npu_buffers_bytes > 0) is board.has_npu
    assert board.has_npu is name.startswith("rk3588")
    slow, likely, fast = (band_ms(4, 4096, 4096, board=board.at(end)) for end in ("low", "likely", "high"))
    assert slow >= likely >= fast > 0


def test_a_slow_board_reads_half() -> None:
    usual, slow = find_board("rk3588-8gb"), find_board("rk3588-8gb-slow")
    assert slow.value("cpu_read_bandwidth") == usual.value("cpu_read_bandwidth") / 2
    assert slow.ram_bytes == usual.ram_bytes


def test_cores_of_the_npu_and_for_decode() -> None:
    """RK3588 data sheet: three NPU cores; Linux counts the four A55 first. The Pi has four A76 only."""
    assert NPU_CORES == 3
    assert find_board("rk3588-8gb").chip.decode_cores == range(4, 8)
    assert find_board("rpi5-8gb").chip.decode_cores == range(4)
