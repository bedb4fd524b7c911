"""What the system says of the machine that is measured: cores, clocks, governors, caches, memory, heat.

Everything is read below a root, so that tests can lay out a machine. Only what is listed here is taken: no
name of a host or user, no serial number or address, no path. What a file does not say is left out.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rockledge.board.boards import find_chip
from rockledge.board.facts_file import Measured
from rockledge.runtime.board_sysfs import BoardSysfs
from rockledge.runtime.npu_system import compatible
from rockledge.runtime.processor import this_processor
from rockledge.runtime.sysfs_number import sysfs_count

_CPUS: Final = "sys/devices/system/cpu"
_MOST_CHARACTERS: Final = 80
_SIZE: Final = re.compile(r"([0-9]{1,15})([KMG]?)")
_SCALES: Final[Mapping[str, int]] = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_CACHE_FACTS: Final = {1: ("cpu_l1_bytes", "B/core"), 2: ("cpu_l2_bytes", "B/core"), 3: ("cpu_l3_bytes", "B")}
_KINDS: Final = ("npu", "dmc", "gpu")


def described(root: Path = Path("/")) -> dict[str, Any]:
    """As JSON values: `compatible` of the device tree, `policies` of cores that share a clock, `devices` with
    clocks of their own, `memory` in bytes, huge pages, temperature and whether the kernel throttles now."""
    sysfs = BoardSysfs(root)
    celsius = sysfs.celsius()
    return {
        "compatible": [_plain(name) for name in compatible(root)],
        "cpus": _plain(_text(root / _CPUS / "present")),
        "policies": _policies(root),
        "devices": _devices(root),
        "memory": _memory(root),
        "huge_pages": _plain(_text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        "celsius": None if celsius is None else round(celsius, 1),
        "throttled": sysfs.throttled(),
    }


def chip_name(root: Path = Path("/")) -> str:
    """The name of its chip where there are facts about it, else ""."""
    chip = find_chip(compatible(root))
    return "" if chip is None else chip.name


def cache_facts(core: int, root: Path = Path("/")) -> dict[str, Measured]:
    """Bytes of the data caches that `core` uses, as facts."""
    found = {}
    for folder in sorted((root / _CPUS / f"cpu{core}/cache").glob("index*")):
        level, size = sysfs_count(_text(folder / "level")), _SIZE.fullmatch(_text(folder / "size"))
        if _text(folder / "type") == "Instruction" or level is None or size is None:
            continue
        if level in _CACHE_FACTS:
            name, unit = _CACHE_FACTS[level]
            value = float(int(size[1]) * _SCALES[size[2]])
            found[name] = Measured(value, unit, "stated by the system", (value, value), 1)
    return found


def clock_hz(cores: Sequence[int], root: Path = Path("/")) -> float:
    """The clock of `cores` in Hz, as the system states it now; the lowest where they differ, and 1 GHz where
    it states none, so that a cycle is a nanosecond."""
    texts = (_text(root / _CPUS / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores)
    stated = [sysfs_count(text) or 0 for text in texts]
    if stated and all(stated):
        return 1e3 * min(stated)
    cpuinfo = _text(root / "proc/cpuinfo")
    clocks = this_processor(cpuinfo, root / _CPUS, model="").clocks_mhz
    return 1e6 * min(clocks) if any(clocks) else 1e9


def processor_name(root: Path = Path("/")) -> str:
    """Of the processor, or the board's model where it has one."""
    model = _text(root / "proc/device-tree/model")
    return _plain(this_processor(_text(root / "proc/cpuinfo"), root / _CPUS, model=model).name)


def kernel_release(release: str) -> str:
    """Its version without what a builder may have added: 6.1.43-rockchip of 6.1.43-rockchip-ann@home."""
    found = re.match(
        r"\d+(\.\d+){1,3}(-(rockchip|vendor|rk\d*|rpi|v8|armbian|current|edge|generic|amd64|arm64))*", release
    )
    return found[0] if found else "unknown"


def _policies(root: Path) -> list[dict[str, Any]]:
    found = []
    for folder in sorted((root / _CPUS / "cpufreq").glob("policy*")):
        found.append(
            {
                "cores": _plain(_text(folder / "related_cpus")),
                "governor": _plain(_text(folder / "scaling_governor")),
                "mhz": _mhz(_text(folder / "scaling_cur_freq"), 1000),
                "least_mhz": _mhz(_text(folder / "scaling_min_freq"), 1000),
                "most_mhz": _mhz(_text(folder / "cpuinfo_max_freq"), 1000),
                "points_mhz": _points(_text(folder / "scaling_available_frequencies"), 1000),
            }
        )
    return found


def _devices(root: Path) -> list[dict[str, Any]]:
    found = []
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        kind = next((kind for kind in _KINDS if kind in folder.name.split(".")[-1]), None)
        if kind is not None:
            found.append(
                {
                    "kind": kind,
                    "governor": _plain(_text(folder / "governor")),
                    "mhz": _mhz(_text(folder / "cur_freq"), 1_000_000),
                    "most_mhz": _mhz(_text(folder / "max_freq"), 1_000_000),
                    "points_mhz": _points(_text(folder / "available_frequencies"), 1_000_000),
                }
            )
    return found


def _memory(root: Path) -> dict[str, int]:
    text = _text(root / "proc/meminfo")
    names = {"MemTotal": "total", "MemAvailable": "available"}
    found = re.findall(r"^(\w+):\s*([0-9]{1,15}) kB$", text, re.MULTILINE)
    return {names[name]: int(size) << 10 for name, size in found if name in names}


def _mhz(text: str, unit: int) -> int | None:
    found = sysfs_count(text)
    return None if found is None else found // unit


def _points(text: str, unit: int) -> list[int]:
    return sorted(hz // unit for hz in map(sysfs_count, text.split()) if hz is not None)


def _plain(text: str) -> str:
    """A short text of printable ASCII, without what would be a path."""
    kept = "".join(letter if " " <= letter <= "~" else " " for letter in text)
    return " ".join(kept.replace("/", " ").split())[:_MOST_CHARACTERS]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def ram_bytes() -> int:
    """Of memory that the system sees."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
