"""Converted models, kept so that they are there the next time: found by a fingerprint of their source,
bounded in size, the least recently used removed first.

A model lies in `ROOT/KEY/NAME`, an artifact like any other; `ROOT/KEY.lock` is held shared by those who use
it, and alone by the one who makes or removes it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rockledge.artifact import VERSION, open_artifact
from rockledge.artifact.publish import writing
from rockledge.disk_size import disk_size
from rockledge.errors import ArtifactError, CheckpointError
from rockledge.model.gguf_split import parts_beside
from rockledge.model.source import source_name
from rockledge.regular_file import open_regular

REVISION = 1
"""Raised when `convert` makes other weights of the same source."""
_END = 1 << 16  # bytes at the ends of a file that its digest covers
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_SOURCE = "source"  # the file beside the artifact that names the checkpoint


@dataclass(frozen=True)
class Converted:
    """One converted model: its key, the artifact's directory, what it was made of (None: not known), bytes on
    disk, and when it was made and last used (seconds of the epoch)."""

    key: str
    path: Path
    source: Path | None
    size: int
    made: float
    used: float


@dataclass(frozen=True)
class ConvertedModels:
    """The converted models under `root`, of at most `limit` bytes together: those in use may be more."""

    root: Path
    limit: int

    @contextmanager
    def model(
        self, source: Path, bits: float | None, make: Callable[[Path], object], waiting: Callable[[], None]
    ) -> Iterator[Path]:
        """The artifact of the checkpoint `source` at `bits` (None: the default); it is not removed before the
        block is left.

        `make(path)` writes it where it is missing or does not open. While another process does that, this one
        waits, after calling `waiting`. UnwritableError where a model that is missing cannot be written; one
        that is there is used from a read-only cache too.
        """
        key = fingerprint(source, bits)
        place = self.root / key / source_name(source)
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with _lock_file(self._lock(key)) as lock:
            while not self._shared(lock, place, waiting):
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _opens(place):
                    shutil.rmtree(self.root / key, ignore_errors=True)  # half-made or damaged
                    make(place)
                    if not _opens(place):  # or it would be made again and again
                        shutil.rmtree(self.root / key, ignore_errors=True)
                        raise ArtifactError(
                            f"{place} was removed or damaged while it was written; run this again"
                        )
                    if fingerprint(source, bits) != key:
                        shutil.rmtree(self.root / key, ignore_errors=True)
                        raise CheckpointError(
                            f"{source} changed while it was converted; run this again once it is complete"
                        )
                    with writing(self.root):
                        (self.root / key / _SOURCE).write_bytes(os.fsencode(source.absolute()))
            self._touch(key)
            self.trim()
            yield place

    @contextmanager
    def kept(self, key: str) -> Iterator[None]:
        """Until the block is left, the model of that key is not removed."""
        with _lock_file(self._lock(key)) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._touch(key)
            yield

    def _touch(self, key: str) -> None:
        """Notes that the model is used now, where that can be noted."""
        with writing(self.root):
            try:
                os.utime(self.root / key)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise

    def all(self) -> list[Converted]:
        """The models that can be opened, the most recently used first."""
        return [one for entry in self._entries() if (one := _converted(entry)) is not None]

    def remove(self, key: str) -> int | None:
        """Removes a model, and returns the bytes freed; None where another process uses or makes it.
        ArtifactError where it cannot be removed."""
        size, entry = self.size(key), self.root / key
        if not self._remove(entry):
            return None
        if entry.exists():
            raise ArtifactError(f"{entry} cannot be removed; make it writable, or remove it yourself")
        return size

    def size(self, key: str) -> int:
        """Bytes that an entry has on disk."""
        return disk_size(self.root / key)

    def half_made(self) -> list[str]:
        """Keys of what killed processes left: entries that do not open and that nobody makes."""
        found = [entry.name for entry in self._entries() if _converted(entry) is None]
        return [key for key in found if self._free(key)]

    def _entries(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return sorted((path for path in self.root.iterdir() if path.is_dir()), key=lambda path: -_used(path))

    def _lock(self, key: str) -> Path:
        return self.root / f"{key}.lock"

    def _free(self, key: str) -> bool:
        with _lock_file(self._lock(key)) as lock:
            return _locked(lock)

    def _shared(self, lock: int, place: Path, waiting: Callable[[], None]) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_SH)
        return _opens(place)

    def trim(self) -> None:
        """Removes models nobody uses, the least recently used first, until the others fit."""
        total = 0
        for entry in self._entries():
            size = disk_size(entry)
            if total + size > self.limit and self._remove(entry) and not entry.exists():
                continue
            total += size

    def _remove(self, entry: Path) -> bool:
        """Whether nobody uses or makes a model; as much of it as can be is removed then."""
        with _lock_file(self._lock(entry.name)) as lock:
            if not _locked(lock):
                return False
            shutil.rmtree(entry, ignore_errors=True)
        return True


def fingerprint(source: Path, bits: float | None) -> str:
    """A name for what `convert` makes of `source`, from its place and from name, size, time and ends of its
    files: reading them whole would take as long as converting them."""
    facts = [REVISION, VERSION, bits, str(source.resolve()), [_facts(file) for file in _files(source)]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _files(source: Path) -> list[Path]:
    if source.is_dir():  # not all that lies below: the directory may be somebody's home
        found = (*source.glob("*"), *source.glob("additional_chat_templates/*"))
        return sorted(path for path in found if path.is_file())
    return parts_beside(source)


def _facts(file: Path) -> list[str | int]:
    try:
        with open_regular(file) as opened:
            stat = os.fstat(opened.fileno())
            digest = hashlib.sha256(opened.read(_END))
            opened.seek(max(0, stat.st_size - _END))
            digest.update(opened.read(_END))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    return [file.name, stat.st_size, stat.st_mtime_ns, digest.hexdigest()]


def _converted(entry: Path) -> Converted | None:
    """The model of an entry, None where it does not open."""
    try:
        for place in sorted(path for path in entry.iterdir() if path.is_dir()):
            if not place.name.startswith(".") and _opens(place):
                named = entry / _SOURCE
                source = Path(os.fsdecode(named.read_bytes())) if named.is_file() else None
                made, used = place.stat().st_mtime, entry.stat().st_mtime
                return Converted(entry.name, place, source, disk_size(entry), made, used)
    except OSError:  # another process has just removed it
        pass
    return None


def _locked(lock: int) -> bool:
    """Whether nobody else held the lock; it is held alone from now on."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _opens(place: Path) -> bool:
    if not place.is_dir():
        return False
    try:
        open_artifact(place)
    except ArtifactError:
        return False
    return True


@contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    with writing(path):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno not in _READ_ONLY or not path.exists():
                raise
            descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0
