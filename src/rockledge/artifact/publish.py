"""A directory that appears under its name whole or not at all.

It is filled under a hidden name beside its place, flushed to the disk, and renamed. A failure or Ctrl-C
removes the hidden one; what a killed process left is removed by the next writer of the same name.
"""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rockledge.errors import ArtifactError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NAME_BYTES = 200  # of the name that are in the hidden one, which is longer and may have 255
_ABANDONED_SECONDS = 60.0  # younger ones may belong to a writer that has not taken its lock yet


class UnwritableError(ArtifactError):
    """A place that cannot be written to: read-only, full, or gone."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError of its body into an UnwritableError: a full disk, or what else went wrong."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UnwritableError(
                f"no space is left for {path}, nothing was put there; free some, or choose another disk"
            ) from error
        reason = error.strerror or str(error)
        raise UnwritableError(
            f"{path} cannot be written ({reason.lower()}), nothing was put there; choose a writable place"
        ) from error


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and flushes it to the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step (Linux renameat2); False where the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    done = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    return bool(done == 0)


def _put_in_place(partial: Path, path: Path) -> None:
    if not path.exists():
        os.rename(partial, path)
    elif not _exchange(partial, path):
        # Without an exchange there is a moment with nothing under the name, but never a half directory.
        aside = partial.with_name(partial.name + ".old")
        os.rename(path, aside)
        try:
            os.rename(partial, path)
        except BaseException:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync_directory(path.parent)


def _lock(directory: Path) -> int | None:
    """Descriptor that holds the directory's lock as long as this process lives, or None: somebody has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def abandoned(path: Path) -> list[Path]:
    """The hidden directories that killed writers of `path` left beside it."""
    pattern = f"{glob.escape(_hidden(path))}*"
    return [left for left in path.parent.glob(pattern) if not _in_use(left)]


def _hidden(path: Path) -> str:
    """How the hidden names of what becomes `path` begin."""
    return f".{os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])}.partial-"


def _in_use(partial: Path) -> bool:
    """Whether a writer holds the directory, or is young enough not to hold it yet."""
    try:
        if time.time() - partial.stat().st_mtime < _ABANDONED_SECONDS:
            return True
        held = _lock(partial)
    except OSError:
        return True
    if held is not None:
        os.close(held)
    return held is None


def _remove_abandoned(path: Path) -> None:
    for left in abandoned(path):
        shutil.rmtree(left, ignore_errors=True)


def remove_left_by(path: Path, process: int) -> None:
    """Removes the hidden directories that one writer of `path` left, who is known to be dead."""
    for left in path.parent.glob(f"{glob.escape(_hidden(path))}{process}-*"):
        held = _lock(left)
        if held is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)


@contextmanager
def publish_directory(path: Path, may_replace: Callable[[Path], None]) -> Iterator[Path]:
    """Yields a hidden directory to fill; when the body ends without an error, `path` becomes that directory.

    `may_replace` is called with an existing `path` and raises if it must not be replaced; an empty directory
    always may. Raises ArtifactError when the place cannot be written.
    """
    path = Path(os.path.realpath(path))

    def check_place() -> None:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            may_replace(path)

    check_place()
    partial = path.with_name(f"{_hidden(path)}{os.getpid()}-{os.urandom(4).hex()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        partial.mkdir()
    held: int | None = None
    try:
        with writing(path):
            held = _lock(partial)
        yield partial
        check_place()
        with writing(path):
            _sync_directory(partial)
            _put_in_place(partial, path)
    finally:
        # After an exchange the hidden name holds the old directory.
        shutil.rmtree(partial, ignore_errors=True)
        if held is not None:
            os.close(held)
