"""What measurements run on: the processor, what other processes take of it, the code, and endless loops."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from rockledge.runtime.processor import this_processor

QUIET = 0.1  # share of the machine that others may take while threads are compared


def processor() -> str:
    """The processor's name."""
    return this_processor().name


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit that is checked out, with "-dirty" behind it where tracked files other than results differ.

    "unknown" outside of a repository. Asked once a process: what is measured is the code as it was loaded.
    """
    head = _git("rev-parse", "--short=7", "HEAD")
    if not head:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)bench/results")
    return f"{head}-dirty" if changed else head


def _git(*words: str) -> str:
    """What git prints about this repository; nothing where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip()


def plain_environment() -> dict[str, str]:
    """This environment without settings of OpenMP, which change how llama.cpp's threads wait for each other:
    with OMP_WAIT_POLICY=passive it decodes at a third of its speed."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}


class Foreign:
    """The share of the machine that processes other than this one and its finished children take."""

    def __init__(self) -> None:
        self._start = _busy_seconds() - _own_seconds(), time.monotonic()

    def share(self) -> float:
        """From 0 to 1, since this was made. Endless loops of ours count as ours once they have ended."""
        seconds = (time.monotonic() - self._start[1]) * (os.cpu_count() or 1)
        foreign = _busy_seconds() - _own_seconds() - self._start[0]
        return round(max(0.0, foreign) / seconds, 3)


# Ends by itself when the process that started it is gone, however that ended.
_LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def endless_loops(count: int) -> Iterator[None]:
    """`count` processes that do nothing, as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(count)]
    try:
        time.sleep(0.3 if loops else 0)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _busy_seconds() -> float:
    """CPU seconds of all processes of this machine since it started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    user, nice, system, _idle, _waiting, irq, soft_irq = fields
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
