"""How much more memory this process may take: what the system has, within the limits of its cgroups."""

import re
from collections.abc import Iterator
from pathlib import Path

from rockledge.runtime.offload.budget import free_bytes
from rockledge.runtime.sysfs_number import sysfs_count

# Names of files in the directory of a group: the limit, what is used of it, the statistics, and in those the
# page cache that is given up first
# (https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html).
_V2 = ("memory.max", "memory.current", "memory.stat", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file")


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the process can still take before something else has to go; None where nothing says so."""
    found = [free_bytes(proc / "meminfo"), *_left_in_groups(proc / "self/cgroup", groups)]
    return min((left for left in found if left is not None), default=None)


def _left_in_groups(own: Path, groups: Path) -> Iterator[int]:
    """What every limited group that the process is in has left, and those above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            root, names = groups, _V2
        elif "memory" in controllers.split(","):
            root, names = groups / "memory", _V1
        else:
            continue
        # In a container the path may be that of the host, which is not seen here; then the root is the group.
        place = root / path.lstrip("/")
        for group in (place, *place.parents):
            if group.is_relative_to(root) and (left := _left(group, names)) is not None:
                yield left


def _left(group: Path, names: tuple[str, str, str, str]) -> int | None:
    """What a group has left; None where it has no limit, or is not there."""
    limit, used, statistics, cache = names
    try:
        texts = [(group / name).read_text(errors="replace") for name in (limit, used, statistics)]
    except OSError:
        return None
    most, taken = map(sysfs_count, texts[:2])
    if most is None or taken is None:  # "max"
        return None
    kept = re.search(rf"^{cache} ([0-9]{{1,19}})$", texts[2], re.MULTILINE)
    return max(0, most - taken + (int(kept[1]) if kept else 0))
