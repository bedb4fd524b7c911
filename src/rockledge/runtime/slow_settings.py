"""Settings of a board's system that make it slow, each with the command that mends it and what it costs.

What they cost was published by others for an RK3588, not measured here. Everything is read below a root; what
is not there is no finding. `npu info` shows more of the NPU alone (`npu_system.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rockledge.board.boards import find_chip
from rockledge.board.chip import Chip
from rockledge.runtime.npu_system import Frequency, System, compatible, findings, look
from rockledge.runtime.sysfs_number import sysfs_count

_NOTES: Final = "published: gregordinary/rockchip-npu-notes perf/cpu-governor-and-offload.md"
_CLOCK: Final = "published: gregordinary/rockchip-npu-notes perf/clock.md"
_NOBODY: Final = "no figure is published"
_DEEP_IDLE: Final = 0.9
"""From this share of the published wake-up on an idle state counts as the deep one."""
_SLOW_NPU_HZ: Final = 300_000_000
_MHZ: Final = 1_000_000


@dataclass(frozen=True)
class SlowSetting:
    """What is slow, what that costs by whose figure, and the command that mends it."""

    what: str
    costs: str
    source: str
    mend: str


def slow_settings(root: Path = Path("/")) -> list[SlowSetting]:
    """What is found on a machine whose chip is known; nothing on others."""
    chip = find_chip(compatible(root))
    if chip is None or chip.refused:
        return []
    system = look(root)
    return [
        *_memory(system),
        *_npu(root, system),
        *_governors(system),
        *_floors(root, system, chip),
        *_interrupts(system),
        *_idle(root, system, chip),
    ]


def _memory(system: System) -> Iterator[SlowSetting]:
    clock = system.memory
    if clock is not None and clock.governor != "performance" and clock.current < clock.highest:
        yield SlowSetting(
            f"memory is parked at {_of(clock)} (governor {clock.governor})",
            "4.7 % of decode on the CPU with dmc_ondemand",
            _NOTES,
            _write("performance", f"{clock.folder}/governor"),
        )


def _npu(root: Path, system: System) -> Iterator[SlowSetting]:
    clock = system.npu
    if clock is None:
        return
    # A governor that was killed leaves such a limit too, and the next one takes it for somebody's wish.
    stated = _text(root / clock.folder.lstrip("/") / "available_frequencies").split()
    possible = max((sysfs_count(one) or 0 for one in stated), default=0)
    if 0 < clock.highest < possible:
        yield SlowSetting(
            f"the NPU is limited to {clock.highest // _MHZ} of {possible // _MHZ} MHz",
            f"its products take {possible / clock.highest:.1f} times as long",
            _CLOCK,
            _write(f"{possible}", f"{clock.folder}/max_freq"),
        )
    if clock.current < min(_SLOW_NPU_HZ, clock.highest):
        share = clock.current / clock.highest
        yield SlowSetting(
            f"the NPU is at {_of(clock)}",
            f"its products take {1 / share:.0f} times as long",
            _CLOCK,
            _write("performance", f"{clock.folder}/governor"),
        )


def _governors(system: System) -> Iterator[SlowSetting]:
    for clock in system.processors:
        if clock.governor == "powersave":
            yield SlowSetting(
                f"big cores are held at {_of(clock)} (governor powersave)",
                "what depends on the clock takes that much longer; ondemand alone costs 8 to 13 % of prompts "
                "on the NPU, nothing on the CPU",
                _NOTES,
                _write("performance", f"{clock.folder}/scaling_governor"),
            )


def _floors(root: Path, system: System, chip: Chip) -> Iterator[SlowSetting]:
    if chip.power is None:
        return
    least = round(chip.power.slowest_hz)
    for clock in system.processors:
        stated = sysfs_count(_text(root / clock.folder.lstrip("/") / "scaling_min_freq"))
        floor = least if stated is None else stated * 1000
        if floor < least and clock.governor not in ("performance", "powersave"):
            yield SlowSetting(
                f"big cores may fall to {floor // _MHZ} MHz between jobs",
                "a small job on the NPU takes 3.2 times as long from 408 MHz, 1.27 times from 1200",
                _NOTES,
                _write(f"{least // 1000}", f"{clock.folder}/scaling_min_freq"),
            )


def _interrupts(system: System) -> Iterator[SlowSetting]:
    for finding in findings(system, "any"):
        if finding.what.startswith("interrupt "):
            yield SlowSetting(finding.what, "an A55 answers later than an A76", _NOBODY, finding.mend)


def _idle(root: Path, system: System, chip: Chip) -> Iterator[SlowSetting]:
    deep = chip.facts.get("cpu_idle_exit_seconds")
    if deep is None:
        return
    for core in system.big_cores:
        states = sorted((root / f"sys/devices/system/cpu/cpu{core}/cpuidle").glob("state*"))
        for state in states:
            latency = sysfs_count(_text(state / "latency"))
            if (
                latency is not None
                and latency >= 1e6 * _DEEP_IDLE * deep.value
                and _text(state / "disable") == "0"
            ):
                yield SlowSetting(
                    f"big cores sleep so deeply that they take {latency} us to wake up",
                    "3 % of prompts on the NPU",
                    _NOTES,
                    "for core in "
                    + " ".join(map(str, system.big_cores))
                    + "; do echo 1 | sudo tee "
                    + f"/sys/devices/system/cpu/cpu$core/cpuidle/{state.name}/disable; done",
                )
                return


def _of(clock: Frequency) -> str:
    return f"{clock.current // _MHZ} of {clock.highest // _MHZ} MHz"


def _write(value: str, file: str) -> str:
    return f"echo {value} | sudo tee {file}"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
