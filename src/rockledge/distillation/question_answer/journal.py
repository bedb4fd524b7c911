"""What the teacher has written so far, as a file that a killed process can go on from.

The first line says what run it is of, every other one holds a batch of outputs. A line counts when it is
whole.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rockledge.artifact.publish import UnwritableError
from rockledge.errors import UsageError

Output = tuple[str, bool]
"""A text, and whether the model ended it by itself."""


class Journal:
    """The batches of one run in the file `path`, which no other process has meanwhile. A context manager."""

    def __init__(self, path: Path, described: Mapping[str, Any]) -> None:
        """Raises UsageError where the file is of another run that has written something, or in use."""
        self.path = path
        self._described = json.loads(json.dumps(described))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(
                f"another run is writing {path}; wait until it ends, or name another place by -o"
            ) from error
        except OSError:  # a file system without locks
            pass
        try:
            self.batches = self._read()
        except BaseException:
            self._file.close()
            raise

    def add(self, outputs: Sequence[Output]) -> None:
        """Appends a batch and flushes it to the disk; UnwritableError where that has no room, and the file is
        as it was."""
        self._append({"batch": len(self.batches), "outputs": outputs})
        self.batches.append(list(outputs))

    def remove(self) -> None:
        """Removes the file: what it holds is elsewhere."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _read(self) -> list[list[Output]]:
        self._file.seek(0)
        whole = 0
        before: dict[str, Any] | None = None
        batches: list[list[Output]] = []
        for line in self._file:
            entry = _entry(line)
            if entry is None:
                break
            if before is None:
                before = entry
            elif entry.get("batch") == len(batches) and (outputs := _outputs(entry)) is not None:
                batches.append(outputs)
            else:
                break
            whole += len(line)
        if before == self._described:
            self._file.truncate(whole)
            return batches
        if before is not None and batches:
            keys = before.keys() | self._described.keys()
            differ = sorted(key for key in keys if before.get(key) != self._described.get(key))
            raise UsageError(
                f"{self.path} holds pairs of an unfinished run with another {', '.join(differ[:4])}; give "
                "the same command as then, name another place by -o, or remove that file"
            )
        self._file.truncate(0)
        self._append(self._described)
        return []

    def _append(self, entry: Any) -> None:
        size = os.fstat(self._file.fileno()).st_size
        try:
            self._file.write(json.dumps(entry, ensure_ascii=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            # What is in the buffer still would be written when the file is closed.
            descriptor = os.dup(self._file.fileno())
            with suppress(OSError):
                self._file.close()
            os.ftruncate(descriptor, size)
            os.close(descriptor)
            raise _unwritable(self.path, error) from error


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _outputs(entry: Mapping[str, Any]) -> list[Output] | None:
    """The outputs of a line; None where they are not those of a batch."""
    found = entry.get("outputs")
    whole = isinstance(found, list) and all(
        isinstance(one, list) and [type(part) for part in one] == [str, bool] for one in found
    )
    return [(text, ended) for text, ended in found] if whole and isinstance(found, list) else None


def _unwritable(path: Path, error: OSError) -> UnwritableError:
    return UnwritableError(
        f"{path} cannot be written ({(error.strerror or str(error)).lower()}); what is there is kept: free "
        "some space, or choose another place, and give the same command again"
    )
