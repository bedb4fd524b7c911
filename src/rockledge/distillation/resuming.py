"""Which checkpoints of a run are whole, and whether they are of this run."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rockledge.errors import UsageError

_COMPLETE = "complete.json"
_RUN = "run.json"
_PARTIAL = f"{_RUN}.partial"
CHECKPOINTS, TEACHER = "checkpoints", "teacher"
STUDENT_ADAPTER, TEACHER_ADAPTER = "student-adapter", "teacher-adapter"
GRID, ON_POLICY = "grid", "on-policy"
FLOATS, FLOAT_CHECKPOINTS = "floats", "float-checkpoints"
_OURS = (
    CHECKPOINTS,
    FLOATS,
    FLOAT_CHECKPOINTS,
    f"{FLOATS}.partial",
    GRID,
    ON_POLICY,
    TEACHER,
    STUDENT_ADAPTER,
    TEACHER_ADAPTER,
    f"{TEACHER_ADAPTER}.partial",
)
_PREFIX = "checkpoint-"


def mark_complete(checkpoint: Path) -> None:
    """Flushes the files of a checkpoint to the disk and writes their sizes beside them."""
    sizes = {}
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and file.name != _COMPLETE:
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
            sizes[str(file.relative_to(checkpoint))] = file.stat().st_size
    partial = checkpoint / f"{_COMPLETE}.partial"
    with open(partial, "w", encoding="utf-8") as written:
        json.dump(sizes, written)
        written.flush()
        os.fsync(written.fileno())
    os.replace(partial, checkpoint / _COMPLETE)


def last_checkpoint(directory: Path) -> tuple[int, Path] | None:
    """(step, place) of the latest checkpoint that is whole; None where there is none."""
    found = [
        (int(step), place)
        for place in directory.glob(f"{_PREFIX}*")
        if (step := place.name.removeprefix(_PREFIX)).isdecimal() and _whole(place)
    ]
    return max(found, default=None)


def drop_incomplete(directory: Path) -> None:
    """Removes what a killed process left half written."""
    for place in directory.glob(f"{_PREFIX}*"):
        if not _whole(place):
            shutil.rmtree(place, ignore_errors=True)


def drop_older(directory: Path, last: Path) -> None:
    """Removes all checkpoints but the last."""
    for place in directory.glob(f"{_PREFIX}*"):
        if place != last:
            shutil.rmtree(place, ignore_errors=True)


def checkpoint_bytes(checkpoint: Path) -> int:
    """Bytes of all its files."""
    return sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())


@contextmanager
def claimed(work: Path, described: Mapping[str, Any]) -> Iterator[None]:
    """Makes `work` the directory of the run that is so described, and of no other process meanwhile.

    Raises:
        UsageError: it holds another run that has learnt something, with what differs; or something else; or
            a run is working in it.
    """
    if work.exists() and not work.is_dir():
        raise UsageError(f"{work} is a file, expected a directory for work; name another place by --work")
    work.mkdir(parents=True, exist_ok=True)
    held = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another run is working in {work}; wait until it ends, or name another place by --work"
            ) from error
        except OSError:  # a file system without locks
            pass
        _claim(work, json.loads(json.dumps(described)))
        yield
    finally:
        os.close(held)


def _claim(work: Path, described: Mapping[str, Any]) -> None:
    file = work / _RUN
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            before = None
        before = before if isinstance(before, dict) else {}
        differ = sorted(k for k in described.keys() | before.keys() if described.get(k) != before.get(k))
        if differ and any(last_checkpoint(stage) for stage in work.iterdir() if stage.is_dir()):
            raise UsageError(
                f"{work} holds an unfinished run with another {', '.join(differ[:4])}; give the same command "
                "as then, name another place by --work, or remove that directory"
            )
        if not differ:
            return
        for name in _OURS:  # it ended before anything was learnt
            shutil.rmtree(work / name, ignore_errors=True)
    elif {place.name for place in work.iterdir()} - {_PARTIAL}:
        raise UsageError(
            f"{work} holds something else than a distillation's work; name another place by --work"
        )
    partial = work / _PARTIAL
    partial.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, file)


def files_stated(directory: Path) -> list[list[str | int]]:
    """Name, bytes and time of change of the model files in a directory: enough to know them again."""
    files = sorted(f for f in directory.iterdir() if f.suffix in (".safetensors", ".json") and f.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _whole(place: Path) -> bool:
    try:
        sizes = json.loads((place / _COMPLETE).read_text(encoding="utf-8"))
        return bool(sizes) and all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
