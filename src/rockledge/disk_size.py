"""Bytes that files take on disk, where other processes may write and remove them meanwhile."""

import os
import stat
from pathlib import Path


def disk_size(path: Path) -> int:
    """Of a file, or of all files below a directory; what is not there, or no longer, takes nothing."""
    below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return _bytes(path) + sum(_bytes(name) for name in below)


def _bytes(path: str | Path) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
