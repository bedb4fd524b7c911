"""A safetensors file whose space is taken at once and whose tensors are written in any order, in parts."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rockledge.artifact.publish import writing
from rockledge.tensor_file import Entry, header_bytes, place

if TYPE_CHECKING:
    from typing_extensions import Self


class PlacedFile:
    """A new file at `path`; `tensors` are (name, type as the format spells it, shape) in their order there.
    `shown` is the place that errors name. UnwritableError where the disk is full."""

    def __init__(self, path: Path, tensors: Iterable[tuple[str, str, tuple[int, ...]]], shown: Path) -> None:
        self._shown = shown
        entries = place(tensors)
        header = header_bytes(entries, {"format": "pt"})
        self._start = len(header)
        self.entries: dict[str, Entry] = {entry.name: entry for entry in entries}
        with writing(shown):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.posix_fallocate(self._descriptor, 0, self._start + entries[-1].end)
                self._put(memoryview(header), 0)
            except BaseException:
                os.close(self._descriptor)
                raise

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with writing(self._shown):
                    os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def write(self, name: str, data: memoryview | bytes, skipped: int = 0) -> None:
        """Bytes of the tensor `name`, after the first `skipped` of it."""
        with writing(self._shown):
            self._put(memoryview(data), self._start + self.entries[name].begin + skipped)

    def _put(self, data: memoryview, at: int) -> None:
        while len(data):
            done = os.pwrite(self._descriptor, data, at)
            data, at = data[done:], at + done
