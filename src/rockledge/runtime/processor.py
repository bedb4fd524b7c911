"""Which processor this is and how fast it is clocked: what every measured speed has to be read with."""

import re
from dataclasses import dataclass
from pathlib import Path

from rockledge.runtime.sysfs_number import sysfs_count

CPU_TREE = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Processor:
    """`clocks_mhz` has one entry for each CPU, as the system states it now (under a hypervisor often the
    nominal clock); empty where it is unknown."""

    name: str
    clocks_mhz: tuple[int, ...]
    family: str = ""
    """x86-64: family and model in numbers, which tell generations apart that a hypervisor names alike."""

    @property
    def name_and_family(self) -> str:
        """What figures are filed under: machines of one kind have the same one."""
        return f"{self.name}, {self.family}" if self.family else self.name


def this_processor(cpuinfo: str | None = None, tree: Path = CPU_TREE, model: str | None = None) -> Processor:
    """The processor of this machine.

    `cpuinfo` is the text of /proc/cpuinfo, `model` that of the device tree's model (where small boards have
    their name); both are read when left out. `tree` is where each CPU's frequency is.
    """
    text = _read(Path("/proc/cpuinfo")) if cpuinfo is None else cpuinfo
    board = _read(Path("/proc/device-tree/model")) if model is None else model
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = found[1].strip() if found else board.strip("\0 \n") or "unknown processor"
    clocks = [_kilohertz(cpu / "cpufreq" / "scaling_cur_freq") // 1000 for cpu in _cpus(tree)]
    if not clocks or not all(clocks):
        stated = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)
        clocks = [round(float(value)) for value in stated]
    numbers = [re.search(rf"^{key}\s*:\s*(\d+)$", text, re.MULTILINE) for key in ("cpu family", "model")]
    family = ", ".join(f"{key} {n[1]}" for key, n in zip(("family", "model"), numbers, strict=True) if n)
    return Processor(name, tuple(clocks), family)


def _cpus(tree: Path) -> list[Path]:
    numbered = [path for path in tree.glob("cpu[0-9]*") if path.name[3:].isdigit()]
    return sorted(numbered, key=lambda path: int(path.name[3:]))


def _kilohertz(path: Path) -> int:
    return sysfs_count(_read(path)) or 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
