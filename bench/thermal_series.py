"""The temperature series in bench/thermal_logs, and which load each of their samples belongs to.

Clocks, load and temperature of five RK3588 boards, read from ThomasKaiser/sbc-bench results/NAME.txt (commit
53f7951); times count from the first sample. The benchmark runs its parts in the same order everywhere, each
watched at an interval of its own (30 or 120 s while memory is measured, 9, 16 and 10 s for one core, 10 s and
45 s for all cores), each first on a little core and then on big ones. So interval and load tell the part.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.board.power import voltage_factor
from rockledge.board.rk3588_heat import BIG_VOLTS

FOLDER: Final = Path(__file__).parent / "thermal_logs"

LOADS: Final = (
    "memory, little core", "memory, big cores", "latency, little core", "latency, big core",
    "openssl, little core", "openssl, big core", "7-zip, little core", "7-zip, big core",
    "cpuminer, all cores", "cpuminer, big cores", "cpuminer, little cores", "7-zip, all cores",
)  # fmt: skip
"""Parts of the benchmark. The watts of the last are the unit in which the others are fitted."""
_BIG_SHARE: Final = 0.8  # of the watts of all cores: what four A76 and four A55 take alone, in 41BH
_ZIP_PERCENT: Final = 86.0  # of all cores, as 7-zip keeps them busy on average


@dataclass(frozen=True)
class Log:
    """One board's series. `cooling`: its row of `COOLINGS`; `title`: what it is."""

    name: str
    cooling: str
    title: str


LOGS: Final = (
    Log("4qJr", "passive", "ROCK 5B, passive heat sink"),
    Log("4qJG", "passive", "ROCK 5B capped at 2.2 GHz, which throttles"),
    Log("41BH", "fan", "ROCK 5B with a fan"),
    Log("1Xuf1O1", "heat-sink", "Turing RK1, heat sink"),
    Log("5pv8oh", "bare", "ROCK 5C, little cooling"),
)


@dataclass(frozen=True)
class Series:
    """Samples of a log: seconds, celsius, clock of the big cores in Hz, what part of the benchmark, and its
    `weight` [samples, loads]: the watts of a sample in those of the loads at full clock."""

    seconds: NDArray[np.float64]
    celsius: NDArray[np.float64]
    big_hz: NDArray[np.float64]
    load: tuple[str, ...]
    weight: NDArray[np.float64]

    @property
    def loaded_from(self) -> int:
        """The sample that begins the last part: all cores until the end."""
        alone = [n for n, load in enumerate(self.load) if "all cores" not in load]
        return alone[-1] + 1


def read_series(log: Log) -> Series:
    """The samples of a log."""
    with open(FOLDER / f"{log.name}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seconds, celsius, percent = (
        np.array([float(row[name]) for row in rows]) for name in ("seconds", "celsius", "cpu_percent")
    )
    # Where three clusters are shown, the little one comes first.
    big = "clock_mhz_1" if "clock_mhz_2" in rows[0] else "clock_mhz_0"
    big_hz = np.array([float(row[big]) * 1e6 for row in rows])
    load = _loads(seconds, percent, big_hz)
    weight = np.zeros((len(rows), len(LOADS)))
    for sample, name in enumerate(load):
        weight[sample, LOADS.index(name)] = load_factor(name, percent[sample], big_hz[sample])
    return Series(seconds, celsius, big_hz, load, weight)


def load_factor(load: str, percent: float, big_hz: float) -> float:
    """The watts of a load at a clock of the big cores, in those at 2.4 GHz."""
    clock = voltage_factor(BIG_VOLTS, big_hz)
    if load == "7-zip, all cores":
        return (_BIG_SHARE * clock + 1 - _BIG_SHARE) * percent / _ZIP_PERCENT
    if load == "cpuminer, all cores":
        return _BIG_SHARE * clock + 1 - _BIG_SHARE
    # The governor of the older log shows idle clocks between samples.
    return clock if "big" in load and big_hz > 1.5e9 else 1.0


def _loads(
    seconds: NDArray[np.float64], percent: NDArray[np.float64], big_hz: NDArray[np.float64]
) -> tuple[str, ...]:
    interval = np.diff(seconds, prepend=seconds[0] - 30)
    memory_ends = int(np.argmax((interval < 14) & (np.arange(len(seconds)) > 2)))
    parts: list[str] = []
    for sample, (step, busy) in enumerate(zip(interval, percent, strict=True)):
        # Between 7-zip and cpuminer the cores rest for a moment.
        between = parts[-1:] == ["7-zip, all cores"] and busy > 12 and percent[sample + 1] == 100
        if busy >= 60 or between:
            parts.append("cpuminer, all cores" if step >= 30 else "7-zip, all cores")
        elif busy >= 40:
            parts.append(f"cpuminer, {'big' if big_hz[sample] > 2e9 else 'little'} cores")
        elif sample < memory_ends:
            parts.append("memory")
        else:
            parts.append("openssl" if 14 < step < 20 else "one")
    return tuple(_halves(seconds, parts))


def _halves(seconds: NDArray[np.float64], parts: list[str]) -> list[str]:
    """The parts with which core they run on: first a little one, then big ones, of which there are two
    clusters for the memory."""
    done, begin = list(parts), 0
    openssl = parts.index("openssl")
    while begin < len(parts):
        end = begin
        while end + 1 < len(parts) and parts[end + 1] == parts[begin]:
            end += 1
        part = parts[begin]
        if part in ("memory", "one", "openssl"):
            share = 0.36 if part == "memory" else 0.5
            cut = seconds[begin] + share * (seconds[end] - seconds[begin])
            name = {"memory": "memory", "openssl": "openssl"}.get(
                part, "latency" if begin < openssl else "7-zip"
            )
            big = "big cores" if part == "memory" else "big core"
            for sample in range(begin, end + 1):
                little = seconds[sample] <= cut and end - begin > 1
                done[sample] = f"{name}, {'little core' if little else big}"
        begin = end + 1
    return done
