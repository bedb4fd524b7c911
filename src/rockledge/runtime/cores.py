"""Which cores to use: one thread for each physical core of the fastest kind that this process may run on."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rockledge.runtime.sysfs_number import sysfs_count

CPU_TREE = Path("/sys/devices/system/cpu")


def performance_cores(allowed: Iterable[int], tree: Path = CPU_TREE) -> tuple[int, ...]:
    """The CPU numbers of `allowed` to run on: of two hardware threads of a core only one, and on a processor
    with fast and slow cores only the fast ones (highest `cpuinfo_max_freq`, within 10%).

    What `tree` does not contain is taken as equal, so a container without sysfs gets all allowed CPUs.
    """
    cpus = sorted(set(allowed))
    speed = {cpu: _max_frequency(tree, cpu) for cpu in cpus}
    # Cores of one kind may differ by a bin (RK3588: 2256 and 2304 MHz); the kinds differ more.
    fastest = max(speed.values(), default=0)
    chosen: list[int] = []
    seen: set[str] = set()
    for cpu in cpus:
        siblings = _read(tree / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu)
        if speed[cpu] * 10 >= fastest * 9 and siblings not in seen:
            seen.add(siblings)
            chosen.append(cpu)
    return tuple(chosen)


def default_cores(tree: Path = CPU_TREE) -> tuple[int, ...]:
    """The cores for this process when the user names no number of threads; at least one."""
    return performance_cores(os.sched_getaffinity(0), tree)


@contextmanager
def started_on(cores: Iterable[int]) -> Iterator[None]:
    """Threads started inside may run on `cores` only; the caller keeps its own set afterwards."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _max_frequency(tree: Path, cpu: int) -> int:
    return sysfs_count(_read(tree / f"cpu{cpu}" / "cpufreq" / "cpuinfo_max_freq")) or 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
