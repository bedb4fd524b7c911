"""What a slow board is told at the start of a server: each setting with its command and a published cost."""

from pathlib import Path

from tests.virtual_board.works import eight_billion

from rockledge.board.rk3588_heat import COOLINGS
from rockledge.runtime.slow_settings import slow_settings
from rockledge.virtual_board.board import VirtualBoard
from rockledge.virtual_board.sysfs import VirtualSysfs

POLICY = "sys/devices/system/cpu/cpufreq/policy4"


def board(root: Path) -> VirtualSysfs:
    return VirtualSysfs(root, VirtualBoard(eight_billion(), COOLINGS["fan"], 25.0))


def test_nothing_is_said_of_a_fast_board_or_of_another_machine(tmp_path: Path) -> None:
    assert slow_settings(tmp_path) == []
    board(tmp_path)
    assert slow_settings(tmp_path) == []


def test_every_slow_setting_has_a_command_and_a_cost(tmp_path: Path) -> None:
    tree = board(tmp_path)
    tree.write("sys/class/devfreq/dmc/governor", "dmc_ondemand")
    tree.write("sys/class/devfreq/dmc/cur_freq", "528000000")
    tree.write("sys/class/devfreq/fdab0000.npu/cur_freq", "200000000")
    tree.write("sys/devices/system/cpu/cpufreq/policy6/scaling_governor", "powersave")
    tree.write("sys/devices/system/cpu/cpufreq/policy6/scaling_cur_freq", "408000")
    tree.write(f"{POLICY}/scaling_governor", "ondemand")
    tree.write(f"{POLICY}/scaling_min_freq", "408000")
    tree.write("proc/interrupts", " 77:  0  0  GICv3 142 Level  fdab0000.npu")
    tree.write("proc/irq/77/smp_affinity_list", "0-7")
    for core in range(4, 8):
        for name, text in (("latency", "220"), ("disable", "0")):
            tree.write(f"sys/devices/system/cpu/cpu{core}/cpuidle/state1/{name}", text)
    found = {one.what.split(" (")[0]: one for one in slow_settings(tmp_path)}
    assert [what for what in found if not what.startswith("interrupt")] == [
        "memory is parked at 528 of 2112 MHz",
        "the NPU is at 200 of 1000 MHz",
        "big cores are held at 408 of 2208 MHz",
        "big cores may fall to 408 MHz between jobs",
        "big cores sleep so deeply that they take 220 us to wake up",
    ]
    assert any(what.startswith("interrupt 77") for what in found)
    commands = [one.mend for one in found.values()]
    assert "echo performance | sudo tee /sys/class/devfreq/dmc/governor" in commands
    assert "echo 1200000 | sudo tee /sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq" in commands
    assert all("sudo tee /" in command for command in commands)
    assert "4.7 %" in found["memory is parked at 528 of 2112 MHz"].costs
    assert all(one.source for one in found.values())


def test_a_limit_that_was_left_on_the_npu_is_said(tmp_path: Path) -> None:
    tree = board(tmp_path)
    tree.write("sys/class/devfreq/fdab0000.npu/max_freq", "400000000")
    tree.write("sys/class/devfreq/fdab0000.npu/cur_freq", "400000000")
    (found,) = slow_settings(tmp_path)
    assert found.what == "the NPU is limited to 400 of 1000 MHz"
    assert found.costs == "its products take 2.5 times as long"
    assert found.mend == "echo 1000000000 | sudo tee /sys/class/devfreq/fdab0000.npu/max_freq"
