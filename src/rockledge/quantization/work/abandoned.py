"""The work directories that killed runs without `--work` left beside their artifacts."""

import fcntl
import time
from pathlib import Path

REQUEST = "request.json"
"""The file of a work directory that its run holds a lock on."""
_YOUNG_SECONDS = 3600.0  # a run takes the lock once it has read its checkpoint and its text


def default_work_prefix(out: Path) -> str:
    """How the names of the work directories beside `out` begin."""
    return f".{out.name}.work-"


def abandoned_work(out: Path) -> list[Path]:
    """Those beside the artifact `out` that no run holds."""
    return [path for path in out.parent.glob(f"{default_work_prefix(out)}*") if not _in_use(path)]


def _in_use(work: Path) -> bool:
    """Whether a run holds the directory, or is young enough not to hold it yet."""
    try:
        if time.time() - work.stat().st_mtime < _YOUNG_SECONDS:
            return True
        with (work / REQUEST).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
