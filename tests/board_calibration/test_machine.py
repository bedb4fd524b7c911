"""What the system says of a machine, from a tree that is laid out here, and what is never taken from it."""

import json
from pathlib import Path

import pytest

from rockledge.board_calibration.machine import (
    cache_facts,
    chip_name,
    clock_hz,
    described,
    kernel_release,
    processor_name,
)

SECRETS = {
    "proc/device-tree/serial-number": "a1b2c3d4e5f60718\0",
    "sys/class/net/eth0/address": "02:1a:2b:3c:4d:5e\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/hostname": "anns-board\n",
    "proc/version": "Linux version 6.1.43 (ann@anns-pc) (gcc 12)\n",
}
FILES = {
    "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
    "proc/device-tree/model": "Radxa ROCK 5B\0",
    "proc/cpuinfo": "processor\t: 0\nSerial\t\t: a1b2c3d4e5f60718\n",
    "proc/meminfo": "MemTotal:        8000000 kB\nMemFree: 1 kB\nMemAvailable:    7000000 kB\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/devices/system/cpu/present": "0-7\n",
    "sys/devices/system/cpu/cpufreq/policy4/related_cpus": "4 5\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "2208000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_min_freq": "408000\n",
    "sys/devices/system/cpu/cpufreq/policy4/cpuinfo_max_freq": "2304000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_available_frequencies": "2208000 408000 nonsense\n",
    "sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq": "2208000\n",
    "sys/devices/system/cpu/cpu5/cpufreq/scaling_cur_freq": "1008000\n",
    "sys/devices/system/cpu/cpu4/cache/index0/level": "1\n",
    "sys/devices/system/cpu/cpu4/cache/index0/type": "Data\n",
    "sys/devices/system/cpu/cpu4/cache/index0/size": "64K\n",
    "sys/devices/system/cpu/cpu4/cache/index1/level": "1\n",
    "sys/devices/system/cpu/cpu4/cache/index1/type": "Instruction\n",
    "sys/devices/system/cpu/cpu4/cache/index1/size": "32K\n",
    "sys/devices/system/cpu/cpu4/cache/index3/level": "3\n",
    "sys/devices/system/cpu/cpu4/cache/index3/type": "Unified\n",
    "sys/devices/system/cpu/cpu4/cache/index3/size": "3M\n",
    "sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand\n",
    "sys/class/devfreq/fdab0000.npu/cur_freq": "1000000000\n",
    "sys/class/devfreq/fdab0000.npu/max_freq": "1000000000\n",
    "sys/class/devfreq/dmc/governor": "/home/ann/../dmc\n",
    "sys/class/thermal/thermal_zone0/type": "soc-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "45300\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in {**FILES, **SECRETS}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path


def test_a_board_is_described(root: Path) -> None:
    found = described(root)
    assert found["compatible"] == ["radxa,rock-5b", "rockchip,rk3588"]
    assert found["cpus"] == "0-7"
    (policy,) = found["policies"]
    assert policy == {
        "cores": "4 5", "governor": "ondemand", "mhz": 2208, "least_mhz": 408, "most_mhz": 2304,
        "points_mhz": [408, 2208],
    }  # fmt: skip
    assert {one["kind"]: one["mhz"] for one in found["devices"]} == {"npu": 1000, "dmc": None}
    assert found["memory"] == {"total": 8000000 << 10, "available": 7000000 << 10}
    assert (found["celsius"], found["throttled"]) == (45.3, False)
    assert chip_name(root) == "rk3588"
    assert processor_name(root) == "Radxa ROCK 5B"
    assert clock_hz([4, 5], root) == 1.008e9
    caches = cache_facts(4, root)
    assert {name: one.value for name, one in caches.items()} == {
        "cpu_l1_bytes": 65536,
        "cpu_l3_bytes": 3 << 20,
    }


def test_nothing_says_whose_board_it_is(root: Path) -> None:
    content = json.dumps([described(root), processor_name(root), chip_name(root)])
    for secret in ("a1b2c3d4", "02:1a", "0123456789abcdef", "anns", "ann@", "/home", "/"):
        assert secret not in content, secret


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = described(tmp_path)
    assert (found["compatible"], found["policies"], found["devices"], found["memory"]) == ([], [], [], {})
    assert (chip_name(tmp_path), cache_facts(0, tmp_path)) == ("", {})
    assert clock_hz([0], tmp_path) == 1e9
    assert processor_name(tmp_path) == "unknown processor"


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("6.1.43-rockchip-rk3588", "6.1.43-rockchip-rk3588"),
        ("5.10.160-rockchip", "5.10.160-rockchip"),
        ("6.18.0-ann@home", "6.18.0"),
        ("6.6.31+rpt-rpi-v8", "6.6.31"),
        ("ann's own", "unknown"),
    ],
)
def test_the_kernel_is_told_by_its_version(release: str, told: str) -> None:
    assert kernel_release(release) == told
