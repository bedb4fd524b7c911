"""What was typed into `chat`, kept on disk: one JSON string on a line, readable by its owner only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from prompt_toolkit.history import History

KEPT = 1000  # entries; the file is cut to them when it has twice as many


class ChatHistory(History):
    """The entries of `path`, oldest first in the file. Where it cannot be read or written, `failure` says
    why, and the entries of this session are still there."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.failure: str | None = None
        self._path = path
        self._entries = self._read()

    def load_history_strings(self) -> Iterable[str]:
        """Newest first."""
        return reversed(self._entries)

    def append_string(self, string: str) -> None:
        """Adds an entry, unless it is the newest already."""
        if string not in self.get_strings()[-1:]:
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """One write, so that two chats at the same time do not mix their lines."""
        try:
            with _opened(self._path) as file:
                file.write(_line(string))
        except OSError as error:
            self.failure = error.strerror

    def _read(self) -> list[str]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _opened(self._path) as file:
                file.seek(0)
                lines = file.read().splitlines()
                entries = [entry for line in lines if (entry := _entry(line)) is not None]
                if len(entries) > 2 * KEPT:
                    entries = entries[-KEPT:]
                    file.truncate(0)
                    file.write(b"".join(map(_line, entries)))
        except OSError as error:
            self.failure = error.strerror
            return []
        return entries


def _opened(path: Path) -> FileIO:
    """The file for reading and appending; made for its owner only, or made so."""
    return open(path, "a+b", buffering=0, opener=_private)


def _private(path: str, flags: int) -> int:
    file = os.open(path, flags, 0o600)
    os.fchmod(file, 0o600)
    return file


def _line(entry: str) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _entry(line: bytes) -> str | None:
    """None for a line that is damaged."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) else None
