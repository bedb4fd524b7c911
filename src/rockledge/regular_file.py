"""Reading what should be a plain file: opening a pipe would wait for a writer, a device may have no end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def open_regular(path: Path) -> BinaryIO:
    """The file at `path`, opened for reading without waiting. OSError says what there is instead."""
    _require(path, os.stat(path).st_mode)  # before it is opened, which some devices take as an order
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require(path, os.fstat(opened).st_mode)  # it may be another one by now
    except OSError:
        os.close(opened)
        raise
    return os.fdopen(opened, "rb")


def read_regular(path: Path) -> bytes:
    """All bytes of the file at `path`. OSError as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def _require(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "special file")
        raise OSError(errno.EINVAL, f"it is a {kind}, not a file", str(path))
