"""What goes wrong with a virtual NPU, and when: a faults file as data.

A file is JSON: `{"faults": [{"kind": "lost", "at": 3}, ...]}`. `at` counts what the kind happens to, from 1:
jobs, allocations or resets, in the order in which the driver sees them; `times` says how often in a row.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rockledge.errors import NpuError

JOB: Final = "job"
ALLOCATION: Final = "allocation"
RESET: Final = "reset"
OPEN: Final = "open"


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it counts, which numbers it takes beside `at` and `times`, and what happens."""

    counts: str
    takes: tuple[str, ...]
    about: str


KINDS: Final[Mapping[str, Kind]] = {
    "lost": Kind(JOB, (), "the job never ends; the driver gives up after its timeout and resets"),
    "skipped": Kind(JOB, (), "success is reported, but nothing ran"),
    "late": Kind(JOB, ("seconds",), "the job ends that much later"),
    "error": Kind(JOB, ("errno",), "the driver refuses the job with this error (a name such as EIO)"),
    "gone": Kind(JOB, (), "from this job on every call says that there is no device"),
    "busy": Kind(JOB, ("seconds",), "another process has the cores for that long"),
    "wrong": Kind(RESET, (), "the first job behind this reset reports success and writes zeros"),
    "refused": Kind(ALLOCATION, ("errno",), "the driver refuses a buffer with this error"),
    "memory": Kind(ALLOCATION, ("bytes",), "the device has that many bytes in all"),
    "locked": Kind(OPEN, (), "another process has locked the device"),
    "denied": Kind(OPEN, (), "the node belongs to a group that this user is not in"),
}
_SECONDS_LIMIT: Final = 3600.0


@dataclass(frozen=True)
class Fault:
    """One fault: it happens to number `at` .. `at + times - 1` of what its kind counts."""

    kind: str
    at: int = 1
    times: int = 1
    seconds: float = 0.0
    errno: int = errno.EIO
    bytes: int = 0

    @property
    def counts(self) -> str:
        """What `at` counts."""
        return KINDS[self.kind].counts

    def hits(self, number: int) -> bool:
        """Whether it happens to that number."""
        return self.at <= number < self.at + self.times


class Schedule:
    """The faults of one device, and how far it has come."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.counted = dict.fromkeys((JOB, ALLOCATION, RESET, OPEN), 0)
        self.happened = 0

    def next(self, what: str) -> tuple[Fault, ...]:
        """Counts one more job, allocation, reset or open, and says which faults happen to it."""
        self.counted[what] += 1
        number = self.counted[what]
        hit = tuple(f for f in self.faults if f.counts == what and f.kind != "memory" and f.hits(number))
        self.happened += len(hit)
        return hit

    @property
    def memory_bytes(self) -> int | None:
        """Bytes that the device has, or None: as many as its addresses reach."""
        limits = [fault.bytes for fault in self.faults if fault.kind == "memory"]
        return min(limits, default=None)


def load_faults(path: str | Path) -> tuple[Fault, ...]:
    """The faults of a file. Raises NpuError for a file that is none, naming the entry."""
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
        raise NpuError(f'{name} is no object with a list, expected {{"faults": [...]}}')
    return tuple(_fault(entry, f"fault {number} of {name}") for number, entry in enumerate(entries, 1))


def _fault(entry: Any, name: str) -> Fault:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise NpuError(f"{name} has kind {kind!r}, expected one of {', '.join(KINDS)}")
    takes = KINDS[kind].takes
    unknown = sorted(set(entry) - {"kind", "at", "times", *takes})
    if unknown:
        raise NpuError(
            f"{name} ({kind}) has {unknown[0]!r}, expected at, times{', ' * bool(takes)}{', '.join(takes)}"
        )
    missing = [key for key in takes if key not in entry]
    if missing:
        raise NpuError(f"{name} ({kind}) has no {missing[0]!r}, which this kind needs")
    values: dict[str, Any] = {key: entry[key] for key in entry if key != "kind"}
    for key in ("at", "times", "bytes"):
        value = values.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 40:
            raise NpuError(f"{name} ({kind}) has {key} {value!r}, expected a whole number from 1")
    seconds = values.get("seconds", 0.0)
    if (
        not isinstance(seconds, (int, float))
        or isinstance(seconds, bool)
        or not 0 <= seconds <= _SECONDS_LIMIT
    ):
        raise NpuError(f"{name} ({kind}) has seconds {seconds!r}, expected 0 to {_SECONDS_LIMIT:.0f}")
    if "errno" in values:
        number = getattr(errno, values["errno"], None) if isinstance(values["errno"], str) else None
        if not isinstance(number, int):
            raise NpuError(f"{name} ({kind}) has errno {values['errno']!r}, expected a name such as EIO")
        values["errno"] = number
    return Fault(kind, **values)
