"""What goes wrong with a virtual NPU, and when: a faults file as data.

A file is JSON: `{"faults": [{"kind": "lost", "at": 3}, ...]}`. `at` counts what the kind happens to, from 1:
jobs, allocations or resets, in the order in which the driver sees them; `times` says how often in a row.
With a `core` a fault happens only to jobs that use that core, and to no other core of theirs.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rockledge.board.boards import NPU_CORES
from rockledge.errors import NpuError

JOB: Final = "job"
ALLOCATION: Final = "allocation"
RESET: Final = "reset"
OPEN: Final = "open"


DEVICE: Final = "device"
"""Holds from the start on; counts nothing."""
CORES: Final = NPU_CORES
HOW_DEAD: Final = ("lost", "error", "nothing")


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it counts, which values it needs besides `at` and `times`, and what happens.

    `may_take` are values that have a default. A fault that `stays` happens to all jobs from `at` on.
    """

    counts: str
    takes: tuple[str, ...]
    about: str
    may_take: tuple[str, ...] = ()
    stays: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    "lost": Kind(
        JOB, (), "the job never ends; the driver gives up after its timeout and resets", ("waits", "core")
    ),
    "skipped": Kind(JOB, (), "success is reported, but nothing ran"),
    "late": Kind(JOB, ("seconds",), "the job ends that much later"),
    "error": Kind(JOB, ("errno",), "the driver refuses the job with this error (a name such as EIO)"),
    "gone": Kind(JOB, (), "from this job on every call says that there is no device"),
    "skipped_program": Kind(
        JOB, ("program",), "success is reported, but one program of every chain did not run", ("core",)
    ),
    "wrong_rows": Kind(
        JOB,
        (),
        "success is reported, but in every n-th program of a chain the last rows are wrong",
        ("every", "rows", "core"),
    ),
    "flipped_bits": Kind(
        JOB,
        (),
        "success is reported, but one bit of two sums of a row is wrong in one program of every chain",
        ("bit", "program", "core"),
    ),
    "stale_output": Kind(
        JOB, (), "success is reported, but the output is what the job before left there", ("core",)
    ),
    "dead_core": Kind(JOB, ("core",), "from this job on one core does no work", ("how",), stays=True),
    "busy": Kind(JOB, ("seconds",), "another process has the cores for that long"),
    "wrong": Kind(RESET, (), "the first job after this reset reports success and writes zeros"),
    "refused": Kind(ALLOCATION, ("errno",), "the driver refuses a buffer with this error"),
    "memory": Kind(DEVICE, ("bytes",), "the device has that many bytes in all"),
    "slow_clock": Kind(DEVICE, ("hertz",), "the cores have that clock, and take as long as it makes them"),
    "asleep": Kind(
        DEVICE, ("seconds",), "a job after so many seconds without one reports success, and nothing ran"
    ),
    "locked": Kind(OPEN, (), "another process has locked the device"),
    "denied": Kind(OPEN, (), "the node belongs to a group that this user is not in"),
}
_SECONDS_LIMIT: Final = 3600.0
_WHOLE_LIMIT: Final = 1 << 40
_WHOLE_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "core": (0, CORES - 1),
    "waits": (1, 3),
    "bit": (0, 31),
}


@dataclass(frozen=True)
class Fault:
    """One fault: it happens to number `at` .. `at + times - 1` of what its kind counts.

    `core` None: to all cores. `program` counts those of a chain from 1, and -1 is the last; a chain that has
    fewer loses its last one.
    """

    kind: str
    at: int = 1
    times: int = 1
    seconds: float = 0.0
    errno: int = errno.EIO
    bytes: int = 0
    hertz: int = 0
    waits: int = 1
    program: int = 1
    every: int = 3
    rows: int = 2
    bit: int = 31
    core: int | None = None
    how: str = "lost"

    @property
    def counts(self) -> str:
        """What `at` counts."""
        return KINDS[self.kind].counts

    def hits(self, number: int) -> bool:
        """Whether it happens to that number."""
        return self.at <= number and (KINDS[self.kind].stays or number < self.at + self.times)

    def reaches(self, core: int) -> bool:
        """Whether it happens to that core of a job."""
        return self.core in (None, core)


class Schedule:
    """The faults of one device, and what has been counted so far."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.counted = dict.fromkeys((JOB, ALLOCATION, RESET, OPEN), 0)
        self.happened = 0

    def next(self, what: str, cores: Iterable[int] = range(CORES)) -> tuple[Fault, ...]:
        """Counts one more job (on `cores`), allocation, reset or open; returns the faults of it."""
        self.counted[what] += 1
        number = self.counted[what]
        used = tuple(cores)
        hit = tuple(
            f for f in self.faults if f.counts == what and f.hits(number) and any(map(f.reaches, used))
        )
        self.happened += len(hit)
        return hit

    @property
    def clock_hz(self) -> int | None:
        """The clock of the cores, or None: the driver's own."""
        return min((fault.hertz for fault in self.faults if fault.kind == "slow_clock"), default=None)

    @property
    def sleeps_after(self) -> float:
        """Seconds without a job after which the next one does nothing."""
        return min((fault.seconds for fault in self.faults if fault.kind == "asleep"), default=math.inf)

    def has(self, kind: str) -> bool:
        """Whether a fault of that kind may happen."""
        return any(fault.kind == kind for fault in self.faults)

    @property
    def memory_bytes(self) -> int | None:
        """Bytes that the device has, or None: as many as its addresses reach."""
        limits = [fault.bytes for fault in self.faults if fault.kind == "memory"]
        return min(limits, default=None)


def load_faults(path: str | Path) -> tuple[Fault, ...]:
    """The faults of a file. Raises NpuError for an invalid file, naming the entry."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        body = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise NpuError(f"the faults file {path} cannot be read as JSON: {error}") from None
    return parse_faults(body, str(path))


def parse_faults(body: Any, name: str = "the faults") -> tuple[Fault, ...]:
    """The faults of a parsed file; `name` is what messages call it. Raises NpuError."""
    entries = body.get("faults") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise NpuError(f'{name} is not an object with a list, expected {{"faults": [...]}}')
    return tuple(_fault(entry, f"fault {number} of {name}") for number, entry in enumerate(entries, 1))


def _fault(entry: Any, name: str) -> Fault:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise NpuError(f"{name} has kind {kind!r}, expected one of {', '.join(KINDS)}")
    takes, may_take = KINDS[kind].takes, KINDS[kind].may_take
    known = ("at", "times", *takes, *may_take)
    unknown = sorted(set(entry) - {"kind", *known})
    if unknown:
        raise NpuError(f"{name} ({kind}) has {unknown[0]!r}, expected {', '.join(known)}")
    missing = [key for key in takes if key not in entry]
    if missing:
        raise NpuError(f"{name} ({kind}) lacks {missing[0]!r}, which this kind needs")
    values: dict[str, Any] = {key: entry[key] for key in entry if key != "kind"}
    for key, value in values.items():
        problem = _problem(key, value)
        if problem is not None:
            raise NpuError(f"{name} ({kind}) has {key} {value!r}, expected {problem}")
    if "errno" in values:
        values["errno"] = getattr(errno, values["errno"])
    return Fault(kind, **values)


def _problem(key: str, value: Any) -> str | None:
    """What was expected instead of a wrong value, or None."""
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    if key == "seconds":
        right = number and 0 <= value <= _SECONDS_LIMIT
        return None if right else f"0 to {_SECONDS_LIMIT:.0f}"
    if key == "errno":
        right = isinstance(value, str) and isinstance(getattr(errno, value, None), int)
        return None if right else "a name such as EIO"
    if key == "how":
        return None if value in HOW_DEAD else f"one of {', '.join(HOW_DEAD)}"
    whole = number and isinstance(value, int)
    if key in _WHOLE_LIMITS:
        low, high = _WHOLE_LIMITS[key]
        return None if whole and low <= value <= high else f"a whole number from {low} to {high}"
    if key == "program" and value == -1 and whole:
        return None
    last = " or -1" if key == "program" else ""
    return None if whole and 1 <= value < _WHOLE_LIMIT else f"a whole number from 1{last}"
