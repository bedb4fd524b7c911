"""The sysfs of a virtual board: files below a folder, as an RK3588 with the vendor's kernel has them.

Temperatures, the clocks of cores, NPU and memory, and the throttling are written from a `VirtualBoard`; what
somebody writes as the NPU's highest clock is read back. Names and units are those of Linux.
"""

from pathlib import Path
from typing import Final

from rockledge.board.boards import BOARDS, PROGRAMMED
from rockledge.virtual_board.board import VirtualBoard

ZONES: Final = ("soc-thermal", "bigcore0-thermal", "bigcore1-thermal", "littlecore-thermal", "npu-thermal")
_CHIP: Final = PROGRAMMED.chip
_BIG: Final = PROGRAMMED.value("unthrottled_cpu_hz")
POLICIES: Final = {
    0: PROGRAMMED.value("little_hz"),
    **dict.fromkeys(range(_CHIP.decode_cores.start, _CHIP.decode_cores.stop, 2), _BIG),
}
"""Highest clock of the cores by the number of their cpufreq policy: one for the small ones, and one for each
two of the big ones."""
NPU_CLOCKS: Final = _CHIP.operating_points["npu_hz"].hz
MEMORY_CLOCKS: Final = BOARDS[f"{PROGRAMMED.name}-lpddr4x"].operating_points["dram_hz"].hz
_NPU: Final = "sys/class/devfreq/fdab0000.npu"
_MEMORY: Final = "sys/class/devfreq/dmc"


class VirtualSysfs:
    """The tree below `root`, which is made here."""

    def __init__(self, root: Path, board: VirtualBoard) -> None:
        self.root = root
        self._board = board
        self._written: dict[str, str] = {}
        self._lay_out()
        self.update()

    def _lay_out(self) -> None:
        self.write("proc/device-tree/compatible", "radxa,rock-5b\0rockchip,rk3588\0")
        for number, name in enumerate(ZONES):
            self.write(f"sys/class/thermal/thermal_zone{number}/type", name)
        for number in range(len(POLICIES)):
            folder = f"sys/class/thermal/cooling_device{number}"
            self.write(f"{folder}/type", f"thermal-cpufreq-{number}")
            self.write(f"{folder}/max_state", "1")
        for policy, highest in POLICIES.items():
            folder = f"sys/devices/system/cpu/cpufreq/policy{policy}"
            self.write(f"{folder}/scaling_governor", "performance")
            self.write(f"{folder}/cpuinfo_max_freq", f"{highest / 1e3:.0f}")
            self.write(f"{folder}/cpuinfo_min_freq", "408000")
            self.write(f"{folder}/scaling_min_freq", "1200000")
        npu, memory = (" ".join(f"{hz:.0f}" for hz in clocks) for clocks in (NPU_CLOCKS, MEMORY_CLOCKS))
        for folder, clocks in ((_NPU, npu), (_MEMORY, memory)):
            self.write(f"{folder}/governor", "performance")
            self.write(f"{folder}/available_frequencies", clocks)
            for name in ("cur_freq", "max_freq"):
                self.write(f"{folder}/{name}", clocks.split()[-1])
            self.write(f"{folder}/min_freq", clocks.split()[0])

    def write(self, name: str, text: str) -> None:
        """Makes a file of the tree, or another one of it: for boards that lack something or lie."""
        if self._written.get(name) == text:  # a disk may take long for what it has already
            return
        self._written[name] = text
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if text.endswith("\0") else f"{text}\n", encoding="ascii")

    def read(self, name: str) -> str:
        """What a file of the tree has."""
        return (self.root / name).read_text(encoding="ascii").strip()

    def update(self) -> None:
        """The tree as the board is now; takes over what was written for the NPU."""
        board = self._board
        board.npu_limit_hz = float(self.read(f"{_NPU}/max_freq"))
        self.write(f"{_NPU}/cur_freq", f"{board.npu_limit_hz:.0f}")
        for number in range(len(ZONES)):
            self.write(f"sys/class/thermal/thermal_zone{number}/temp", f"{board.sensed * 1000:.0f}")
        for number, policy in enumerate(POLICIES):
            state = board.throttle.state if policy else 0
            hz = min(POLICIES[policy], board.cpu_hz) if policy else POLICIES[policy]
            self.write(f"sys/class/thermal/cooling_device{number}/cur_state", f"{state}")
            for name in ("scaling_cur_freq", "scaling_max_freq"):
                self.write(f"sys/devices/system/cpu/cpufreq/policy{policy}/{name}", f"{hz / 1e3:.0f}")
