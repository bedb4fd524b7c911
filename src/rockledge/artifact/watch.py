"""Notices that the file of a mapped artifact is changed in place, while it is in use.

A file that is cut short makes the next read of its mapping a SIGBUS; one that is overwritten changes the
weights under the model. Only its own file counts: a new one of the same name leaves the mapping as it was.
"""

import logging
import os
from pathlib import Path
from types import TracebackType

from rockledge.artifact.layout import TENSORS
from rockledge.artifact.reader import Artifact
from rockledge.errors import ArtifactError

log = logging.getLogger(__name__)


class ArtifactWatch:
    """What the file of an open artifact was when it was opened. Close it, or use it as a context manager."""

    def __init__(self, artifact: Artifact) -> None:
        """Raises ArtifactError when the file cannot be opened any more."""
        self._artifact = artifact
        self._file = artifact.path / TENSORS
        try:
            self._opened = os.open(self._file, os.O_RDONLY)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ArtifactError(f"{self._file} cannot be read ({reason}); fetch the artifact again") from error
        found = os.fstat(self._opened)
        self._size, self._written = artifact.mapped.nbytes, found.st_mtime_ns
        self._identity = (found.st_dev, found.st_ino)
        self._replaced = False

    def close(self) -> None:
        """Lets the file go."""
        if self._opened >= 0:
            os.close(self._opened)
            self._opened = -1

    def __enter__(self) -> "ArtifactWatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def changed(self) -> bool:
        """Whether the file was written to since the last call, in less than a millisecond.

        Raises ArtifactError when it is shorter than the mapping: the tensors beyond its end are gone.
        """
        now = os.fstat(self._opened)
        if now.st_size < self._size:
            raise ArtifactError(
                f"{self._file} has {now.st_size} bytes, expected {self._size}: it was cut short while in use; "
                "fetch the artifact again and restart"
            )
        self._note_replaced()
        before, self._written = self._written, now.st_mtime_ns
        return before != now.st_mtime_ns

    def check_ends(self) -> None:
        """Compares the ends of all tensors with their checksums, in some milliseconds, without the mapping.

        Raises ArtifactError that names what is damaged.
        """
        self._artifact.check_ends(Path(f"/proc/self/fd/{self._opened}"))

    def _note_replaced(self) -> None:
        try:
            there = os.stat(self._file)
            replaced = (there.st_dev, there.st_ino) != self._identity
        except OSError:
            replaced = True
        if replaced and not self._replaced:
            log.warning("%s is another file now, or gone; the old one stays in use until a restart", self._file)
        self._replaced = replaced
