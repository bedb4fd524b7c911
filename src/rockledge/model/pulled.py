"""The record of models that came from the Hub: which files each consists of, so that one whose download was
interrupted is never taken for a whole one.

The files lie in the cache of huggingface_hub, which other programs share. `ROOT/ORG/NAME.json` (or
`ORG/NAME:FILE.json`) names those of one model; while they are being fetched it ends in `.partial`.
`.lock` beside it is held by the process that fetches or removes them.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rockledge.model.hub import inside
from rockledge.regular_file import read_regular

_STALE_SECONDS = 3600.0
_RECORD, _PARTIAL, _LOCK = ".json", ".partial", ".lock"


@dataclass(frozen=True)
class Pulled:
    """One model: its name, the snapshot its `files` (with their bytes) lie in, and the one of them that is
    opened, None for the directory."""

    name: str
    snapshot: Path
    files: Mapping[str, int]
    opened: str | None

    @property
    def path(self) -> Path:
        """What is opened."""
        return self.snapshot if self.opened is None else self.snapshot / self.opened

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    @property
    def repository(self) -> Path:
        """The directory that all snapshots of its repository share."""
        return self.snapshot.parent.parent

    def missing(self) -> dict[str, int]:
        """The files, with their bytes, that are not there in full."""
        return {name: size for name, size in self.files.items() if _size(self.snapshot / name) != size}


@dataclass(frozen=True)
class PulledModels:
    """The records under `root`."""

    root: Path

    def find(self, name: str) -> Pulled | None:
        """The model of that name if all of it is there."""
        found = _read(self._file(name, _RECORD))
        if found is not None and not found.missing():
            return found
        found = _read(self._file(name, _PARTIAL))
        if found is None or found.missing():
            return None
        self.finish(found)  # the process that fetched it was killed before it said so
        return found

    def whole(self) -> list[tuple[Pulled, float]]:
        """All models that are there, and when each was pulled (seconds of the epoch)."""
        records = sorted(self.root.glob(f"*/*{_RECORD}"))
        found = [(record, _read(record)) for record in records]
        return [(one, path.stat().st_mtime) for path, one in found if one is not None and not one.missing()]

    def half_made(self) -> list[Pulled]:
        """What interrupted downloads left, those aside that another process goes on with."""
        found = []
        for record in sorted(self.root.glob(f"*/*{_PARTIAL}")):
            one = _read(record)
            if one is not None and one.missing():
                with self.locked(one.name, wait=False) as mine:
                    found += [one] if mine else []
        return found

    def stale_parts(self) -> list[Path]:
        """Parts of files in the repositories of whole models that nobody has written to for an hour: what a
        killed download left before another one succeeded."""
        half = {one.repository for one in self.half_made()}
        repositories = {one.repository for one, _ in self.whole()} - half
        before = time.time() - _STALE_SECONDS
        parts = [part for repository in sorted(repositories) for part in _parts(repository)]
        return [part for part in parts if part.stat().st_mtime < before]

    def begun(self, name: str) -> bool:
        """Whether a download of that model was interrupted, or goes on."""
        return self._file(name, _PARTIAL).exists()

    @contextmanager
    def locked(
        self, name: str, *, wait: bool = True, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[bool]:
        """Whether the model is this process's to fetch or remove until the block is left; it is where it
        waits, after calling `waiting`."""
        lock = self._file(name, _LOCK)
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = True
            except BlockingIOError:
                mine = wait
                if wait:
                    waiting()
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield mine
        finally:
            os.close(descriptor)

    def begin(self, model: Pulled) -> None:
        """Says that the model's files are being fetched; the caller holds its lock."""
        record = {
            "name": model.name,
            "snapshot": str(model.snapshot),
            "files": dict(model.files),
            "opened": model.opened,
        }
        self._file(model.name, _PARTIAL).write_text(json.dumps(record, indent=1))

    def finish(self, model: Pulled) -> None:
        """Says that they are all there; what an earlier pull of the name had besides is removed."""
        before = _read(self._file(model.name, _RECORD))
        with suppress(FileNotFoundError):  # another process has said so meanwhile
            os.replace(self._file(model.name, _PARTIAL), self._file(model.name, _RECORD))
        if before is not None and before.snapshot != model.snapshot:
            self._remove_files(before)

    def remove(self, model: Pulled) -> int:
        """Removes the model's files, unless another model has them too, and its record; returns the bytes
        freed."""
        for ending in (_RECORD, _PARTIAL):
            record = self._file(model.name, ending)
            found = _read(record)
            if found is not None and found.snapshot == model.snapshot:
                record.unlink()
        return self._remove_files(model)

    def on_disk(self, model: Pulled) -> int:
        """Bytes that there are of a model's files, and of those that its repository has in parts."""
        files = [model.snapshot / name for name in model.files]
        return sum(_size(path) or 0 for path in (*files, *_parts(model.repository)))

    def _remove_files(self, model: Pulled) -> int:
        kept = {
            one.snapshot / file
            for ending in (_RECORD, _PARTIAL)
            for record in self.root.glob(f"*/*{ending}")
            if (one := _read(record)) is not None
            for file in one.files
        }
        repository, freed = model.repository, 0
        for name in model.files:
            if (file := model.snapshot / name) not in kept:
                freed += _remove_file(file, repository)
        for part in _parts(model.repository):
            freed += _size(part) or 0
            part.unlink(missing_ok=True)
        _remove_empty(model.snapshot)
        if not any((repository / "snapshots").glob("*")):  # references and lists of files are left
            freed += sum(_size(path) or 0 for path in repository.glob("blobs/*"))
            shutil.rmtree(repository, ignore_errors=True)
        return freed

    def _file(self, name: str, ending: str) -> Path:
        owner, _, rest = name.partition("/")
        return self.root / owner / f"{quote(rest, safe=':')}{ending}"


def _parts(repository: Path) -> list[Path]:
    """The parts of files that huggingface_hub writes before it gives them their names."""
    return list((repository / "blobs").glob("*.incomplete"))


def _remove_file(file: Path, repository: Path) -> int:
    """Removes a file of a snapshot, and its blob where no other snapshot links to that."""
    blob = file.resolve()
    freed = 0
    with suppress(OSError):
        file.unlink()
        links = (path for path in repository.glob("snapshots/**/*") if path.is_symlink())
        linked = any(link.resolve() == blob for link in links)
        if not linked and blob.parent == (repository / "blobs").resolve():
            freed = blob.stat().st_size
            blob.unlink()
    return freed


def _remove_empty(directory: Path) -> None:
    for path in sorted((p for p in directory.glob("**/*") if p.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    with suppress(OSError):
        directory.rmdir()


def _read(record: Path) -> Pulled | None:
    """None for a record that is missing or damaged."""
    try:
        value = json.loads(read_regular(record))
        files = {str(name): int(size) for name, size in value["files"].items()}
        opened = value["opened"]
        if not all(map(inside, files)) or (opened is not None and opened not in files):
            return None
        return Pulled(str(value["name"]), Path(value["snapshot"]), files, opened)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
