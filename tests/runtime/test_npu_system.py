"""Machines laid out as files: what is read of them, and what is said to be slow."""

import pytest

from rockledge.runtime.npu_system import Frequency, Interrupt, findings, look

BOARD = {
    "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
    "proc/interrupts": (
        "           CPU0       CPU1\n"
        " 34:       1234         12  GICv3 142 Level     fdab0000.npu\n"
        " 35:          0          0  GICv3 143 Level     fdab9000.iommu\n"
        " 36:          7          0  virtio  1 Edge      virtio4-input\n"
        "IPI0:         1          2  Rescheduling interrupts\n"
    ),
    "proc/irq/34/smp_affinity_list": "0-7\n",
    "sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand\n",
    "sys/class/devfreq/fdab0000.npu/cur_freq": "300000000\n",
    "sys/class/devfreq/fdab0000.npu/max_freq": "1000000000\n",
    "sys/class/devfreq/dmc/governor": "dmc_ondemand\n",
    "sys/class/devfreq/dmc/cur_freq": "528000000\n",
    "sys/class/devfreq/dmc/max_freq": "2112000000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "408000\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "408000\n",
    "sys/devices/system/cpu/cpufreq/policy4/cpuinfo_max_freq": "2208000\n",
    "sys/bus/platform/devices/fdab0000.npu/iommu_group": "",
}


def lay_out(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return look(root)


def test_a_board_is_read(tmp_path):
    system = lay_out(tmp_path, BOARD)
    assert system.soc == "rockchip,rk3588"
    folder = "/sys/class/devfreq/fdab0000.npu"
    assert system.npu == Frequency(folder, "rknpu_ondemand", 300_000_000, 1_000_000_000)
    assert system.memory.current == 528_000_000
    (big,) = system.processors  # policy0 steers little cores
    assert (big.current, big.highest) == (408_000_000, 2_208_000_000)
    assert system.iommu is True
    assert system.interrupts == (Interrupt(34, "fdab0000.npu", "0-7"),)


def test_what_is_slow_is_said_with_its_mending(tmp_path):
    found = findings(lay_out(tmp_path, BOARD), "rknpu")
    assert [finding.what.split(" (")[0] for finding in found] == [
        "the NPU runs at 300 of 1000 MHz",
        "memory runs at 528 of 2112 MHz",
        "a big core runs at 408 of 2208 MHz",
        "interrupt 34",
    ]
    mends = [finding.mend for finding in found]
    assert mends[0] == "echo performance | sudo tee /sys/class/devfreq/fdab0000.npu/governor"
    assert mends[2] == "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy4/scaling_governor"
    assert mends[3] == "echo 4 | sudo tee /proc/irq/34/smp_affinity_list"


def test_nothing_is_said_of_a_board_that_is_right(tmp_path):
    right = {
        **BOARD,
        "proc/irq/34/smp_affinity_list": "4-5",
        "sys/class/devfreq/fdab0000.npu/cur_freq": "1000000000",
        "sys/class/devfreq/dmc/cur_freq": "2112000000",
        "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "2208000",
    }
    assert findings(lay_out(tmp_path, right), "rknpu") == []


def test_an_iommu_that_is_off_and_a_mainline_clock_are_said(tmp_path):
    files = {"sys/bus/platform/devices/fdab0000.npu/driver_override": ""}
    found = findings(lay_out(tmp_path, files), "rocket")
    assert found[0].what.startswith("mainline leaves the NPU at 200 MHz")
    assert "IOMMU is off" in found[1].what


@pytest.mark.parametrize("text", ["", "fast", "-3"])
def test_what_cannot_be_read_is_unknown(tmp_path, text):
    system = lay_out(tmp_path, {**BOARD, "sys/class/devfreq/fdab0000.npu/cur_freq": text})
    assert system.npu is None
    empty = look(tmp_path / "nothing")
    assert (empty.soc, empty.npu, empty.iommu, empty.interrupts) == (None, None, None, ())
    assert findings(empty, None) == []


CORE = {"sys/bus/platform/devices/fdab0000.npu/of_node/compatible": "rockchip,rk3588-rknn-core\0"}
LOADED = {"sys/bus/platform/drivers/rocket/uevent": ""}
NODE = {"sys/class/accel/accel0/dev": "261:0\n"}


@pytest.mark.parametrize(
    "files, driver, words",
    [
        (CORE | LOADED, None, ["made no node in /dev/accel", "CONFIG_DRM_ACCEL_ROCKET=y"]),
        (CORE, None, ["is not loaded", "modprobe rocket"]),
        (CORE | LOADED | NODE, None, []),  # the node is there: something else keeps it from being opened
        (CORE | LOADED, "rknpu", []),
        ({"sys/bus/platform/devices/fdab0000.npu/of_node/compatible": "rockchip,rk3588-rknpu\0"}, None, []),
    ],
)
def test_a_node_of_mainline_that_is_missing_is_explained(tmp_path, files, driver, words):
    found = [f for f in findings(lay_out(tmp_path, files), driver) if "rocket" in f.what]
    assert len(found) == bool(words)
    for word in words:
        assert word in found[0].what + found[0].mend
