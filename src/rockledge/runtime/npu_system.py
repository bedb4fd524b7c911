"""What this machine says about its NPU besides the driver: clocks, governors, IOMMU, interrupts.

Everything is read from sysfs and procfs below a root, so that tests can lay out a machine of their own. A
file that is missing or cannot be read is a fact that is not known, never an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rockledge.board.boards import PROGRAMMED, find_chip
from rockledge.runtime.sysfs_number import sysfs_count

# Lines of /proc/interrupts: the vendor names them fdab0000.npu or rknpu, mainline by its driver; not "input".
_INTERRUPT: Final = re.compile(r"\s*(\d+):.*\s(\S*(?:(?<![a-z])(?:rk)?npu|rocket)\S*)\s*$")
_MHZ: Final = 1_000_000


@dataclass(frozen=True)
class Frequency:
    """A clock that the kernel steers, in hertz; `folder` is where its governor is set."""

    folder: str
    governor: str
    current: int
    highest: int


@dataclass(frozen=True)
class Interrupt:
    """An interrupt line of the NPU, and who may serve it: processors as the kernel writes them ("0-3")."""

    number: int
    name: str
    processors: str

    @property
    def first(self) -> int | None:
        """The processor that serves it: the kernel takes the first that is allowed."""
        found = re.match(r"\d+", self.processors)
        return int(found[0]) if found else None


@dataclass(frozen=True)
class System:
    """What was found. None and empty stand for what the machine does not say."""

    soc: str | None
    big_cores: tuple[int, ...]
    """The cores that run models, of a chip that is not known those of the one that programs are for."""
    kernel: str
    npu: Frequency | None
    memory: Frequency | None
    processors: tuple[Frequency, ...]
    iommu: bool | None
    interrupts: tuple[Interrupt, ...]
    rocket: bool
    """Whether mainline's driver is loaded or built in."""
    mainline_cores: bool
    """Whether the device tree has the NPU's cores as mainline describes them."""
    accel_nodes: bool


@dataclass(frozen=True)
class Finding:
    """Something that keeps the NPU away or makes it slow, and what mends it."""

    what: str
    mend: str


def look(root: Path = Path("/")) -> System:
    """Reads it all."""
    names = compatible(root)
    chip = find_chip(names) or PROGRAMMED.chip
    return System(
        soc=names[-1] if names else None,
        big_cores=tuple(chip.decode_cores),
        kernel=os.uname().release,
        npu=_devfreq(root, "npu"),
        memory=_devfreq(root, "dmc"),
        processors=tuple(_processors(root, chip.decode_cores)),
        iommu=_iommu(root),
        interrupts=tuple(_interrupts(root)),
        rocket=(root / "sys/bus/platform/drivers/rocket").exists(),
        mainline_cores=_mainline_cores(root),
        accel_nodes=any((root / "sys/class/accel").glob("accel*")),
    )


def findings(system: System, driver: str | None) -> list[Finding]:
    """What keeps it away or makes it slow, worst first. `driver`: of the open device, None without one."""
    found = list(_missing(system)) if driver is None else []
    if driver == "rocket" and system.npu is None:
        found.append(
            Finding(
                "mainline leaves the NPU at 200 MHz, a fifth of its speed",
                "use a kernel whose rocket driver sets the clock, or the vendor's kernel",
            )
        )
    found += _governors(system)
    if system.iommu is False:
        found.append(
            Finding(
                "the NPU's IOMMU is off: buffers have to be contiguous, and large ones are refused",
                "enable it in the device tree (rknpu_mmu, status okay), or reserve memory with cma=512M",
            )
        )
    found += _placement(system)
    return found


def _missing(system: System) -> Iterator[Finding]:
    """Why mainline's node is not there (flipperdevices/flipperone-linux-build-scripts#159)."""
    if system.accel_nodes:
        return
    if system.rocket:
        yield Finding(
            "the driver rocket is loaded and made no node in /dev/accel: a module may come after the kernel "
            "cut the NPU's power as unused",
            "use a kernel with CONFIG_DRM_ACCEL_ROCKET=y, or add regulator_ignore_unused to its command line",
        )
    elif system.mainline_cores:
        yield Finding(
            "the device tree has the NPU as mainline describes it, and the driver rocket is not loaded",
            "sudo modprobe rocket; if no node comes, use a kernel with CONFIG_DRM_ACCEL_ROCKET=y",
        )


def _governors(system: System) -> Iterator[Finding]:
    clocks = [("the NPU", system.npu), ("memory", system.memory)]
    clocks += [("a big core", clock) for clock in system.processors]
    for name, clock in clocks:
        if clock is not None and clock.current < clock.highest:
            file = "scaling_governor" if "cpufreq" in clock.folder else "governor"
            yield Finding(
                f"{name} runs at {clock.current // _MHZ} of {clock.highest // _MHZ} MHz "
                f"(governor {clock.governor})",
                f"echo performance | sudo tee {clock.folder}/{file}",
            )


def _placement(system: System) -> Iterator[Finding]:
    for line in system.interrupts:
        if line.first is not None and line.first not in system.big_cores:
            yield Finding(
                f"interrupt {line.number} ({line.name}) is served by core {line.first}, a little one: "
                "every job waits longer",
                f"echo {system.big_cores[0]} | sudo tee /proc/irq/{line.number}/smp_affinity_list",
            )


def compatible(root: Path = Path("/")) -> tuple[str, ...]:
    """The names of this machine in its device tree, the board first and the chip last; empty without one."""
    text = _text(root / "proc/device-tree/compatible")
    return tuple(text.rstrip("\0").split("\0")) if text else ()


def _devfreq(root: Path, name: str) -> Frequency | None:
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        if name in folder.name.split(".")[-1]:
            return _frequency(root, folder, ("governor", "cur_freq", "max_freq"), 1)
    return None


def _processors(root: Path, big: range) -> Iterator[Frequency]:
    for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        if sysfs_count(folder.name.removeprefix("policy")) in big:
            clock = _frequency(
                root, folder, ("scaling_governor", "scaling_cur_freq", "cpuinfo_max_freq"), 1000
            )
            if clock is not None:
                yield clock


def _frequency(root: Path, folder: Path, names: tuple[str, str, str], unit: int) -> Frequency | None:
    governor = _text(folder / names[0])
    current, highest = (sysfs_count(_text(folder / name) or "") for name in names[1:])
    if governor is None or current is None or highest is None:
        return None
    return Frequency(f"/{folder.relative_to(root)}", governor, current * unit, highest * unit)


def _iommu(root: Path) -> bool | None:
    devices = sorted((root / "sys/bus/platform/devices").glob("*.npu"))
    if not devices:
        return None
    return any((device / "iommu_group").exists() for device in devices)


def _mainline_cores(root: Path) -> bool:
    texts = (_text(file) for file in (root / "sys/bus/platform/devices").glob("*/of_node/compatible"))
    return any(PROGRAMMED.chip.npu_node in (text or "").split("\0") for text in texts)


def _interrupts(root: Path) -> Iterator[Interrupt]:
    for line in (_text(root / "proc/interrupts") or "").splitlines():
        found = _INTERRUPT.match(line)
        if found and "mmu" not in found[2]:
            number = int(found[1])
            processors = _text(root / f"proc/irq/{number}/smp_affinity_list") or ""
            yield Interrupt(number, found[2], processors)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
