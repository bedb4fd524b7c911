"""Finished stages of a run, kept beside its output: a run that was killed goes on after the last of them.

Each is one file that is there whole or not at all. It says what it was computed from, and has a checksum of
its contents; one of another teacher, text or machine, or a damaged one, is computed again. What a stage found
is plain data: lists and dictionaries of tensors, numbers and texts.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch

from rockledge.artifact.publish import remove_left_by, write_file, writing
from rockledge.errors import UsageError

_OWNER: Final = "process"  # who worked here last
_STAGE, _PARTIAL = ".stage", ".partial"
_NAME_BYTES: Final = 200  # of the output's name, as `artifact.publish` has it


class FinishedStages:
    """Those in the directory `place`, of the run that is described by `of`; `reused` are the names of those
    that were found."""

    def __init__(self, place: Path, of: Mapping[str, Any]) -> None:
        self.reused: list[str] = []
        self._place, self._of = place, dict(of)

    def result(self, stage: str, inputs: Any, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, or returned in an earlier run with the same `inputs`, which JSON can
        hold. Where the disk is full, it is not kept."""
        described = json.dumps([self._of, stage, inputs], sort_keys=True)
        key, file = _digest(described.encode()), self._place / f"{stage.replace(' ', '-')}{_STAGE}"
        found = _read(file, key)
        if found is not None:
            self.reused.append(stage)
            return torch.load(BytesIO(found), weights_only=True)
        result = compute()
        stored = BytesIO()
        torch.save(result, stored)
        _write(file, key, stored.getvalue())
        return result


@contextmanager
def finished_stages(out: Path, of: Mapping[str, Any]) -> Iterator[FinishedStages]:
    """The stages of the run that makes `out`, and of no other process meanwhile; what a killed one left of
    the output is removed. They go when the block ends, or stay when it fails, for the next run.

    UsageError where another run makes `out`; UnwritableError where nothing can be written beside it.
    """
    place = _beside(out)
    with writing(out):
        place.mkdir(parents=True, exist_ok=True)
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _locked(held):
            raise UsageError(
                f"another run is making {out}; wait until it ends, or name another place with -o"
            )
        _sweep(place, out)
        with writing(out):
            write_file(place / _OWNER, str(os.getpid()).encode())
        try:
            yield FinishedStages(place, of)
        except BaseException:
            if not any(place.glob(f"*{_STAGE}")):
                shutil.rmtree(place, ignore_errors=True)
            raise
        shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(held)


def drop_stages_of(out: Path) -> None:
    """Removes the stages beside a complete `out`: its run was killed between its last two steps."""
    place = _beside(out)
    try:
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if _locked(held):
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(held)


def _beside(out: Path) -> Path:
    name = os.fsdecode(os.fsencode(out.name)[:_NAME_BYTES])
    return out.with_name(f".{name}.prune")


def _locked(descriptor: int) -> bool:
    """Whether this process has the lock now; yes where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _sweep(place: Path, out: Path) -> None:
    """Removes what the run before left half written: its lock is free, so it is gone."""
    for partial in place.glob(f"*{_PARTIAL}"):
        partial.unlink(missing_ok=True)
    try:
        before = (place / _OWNER).read_text()
    except (OSError, ValueError):
        return
    if before.isdecimal():
        remove_left_by(out, int(before))


def _read(file: Path, key: str) -> bytes | None:
    """The contents of a stage's file; None where it is missing, of something else, or damaged."""
    try:
        first, _, contents = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    return contents if first == _heading(key, contents) else None


def _write(file: Path, key: str, contents: bytes) -> None:
    partial = file.with_name(file.name + _PARTIAL)
    try:
        write_file(partial, _heading(key, contents) + b"\n" + contents)
        os.replace(partial, file)
    except OSError:  # the run goes on; only a kill would cost more
        partial.unlink(missing_ok=True)


def _heading(key: str, contents: bytes) -> bytes:
    return f"{key} {_digest(contents)}".encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
