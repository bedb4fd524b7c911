"""Command streams from a file: raw little-endian words, or cases of register programs as JSON.

JSON is a list of cases, an object with `cases`, or one case: `id` (optional) and `tasks`, each with `words`
of sixteen hexadecimal digits in stream order, trailer included. The tasks of a case are one stream.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rockledge.errors import NpuError, UsageError
from rockledge.npu.stream import words_of

_WORD: Final = re.compile("[0-9a-fA-F]{16}")


@dataclass(frozen=True)
class NamedStream:
    """The words of one stream and what it is called."""

    name: str
    words: tuple[int, ...]


def read_streams(path: str | Path) -> list[NamedStream]:
    """The streams of a file. Raises UsageError for a missing file, NpuError naming what is not a stream."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"there is no file {file}; give raw command words or a JSON of cases")
    data = file.read_bytes()
    if not data:
        raise NpuError(f"{file} is empty, expected command words of 8 bytes or JSON")
    if data.lstrip()[:1] not in (b"{", b"["):
        return [NamedStream(file.name, words_of(data))]
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        # Raw words may begin with that byte too, but no text has zero bytes.
        if len(data) % 8 == 0 and b"\0" in data:
            return [NamedStream(file.name, words_of(data))]
        raise NpuError(
            f"{file} begins like JSON but is not valid; give raw words or a JSON of cases"
        ) from None
    cases = found.get("cases", [found]) if isinstance(found, dict) else found
    if not isinstance(cases, list) or not cases:
        raise NpuError(f"{file} has no cases, expected a list of them under `cases`")
    return [_stream(case, f"case {number}") for number, case in enumerate(cases)]


def _stream(case: Any, unnamed: str) -> NamedStream:
    if not isinstance(case, dict):
        raise NpuError(f"{unnamed} is {type(case).__name__}, expected an object with `tasks`")
    name = str(case.get("id", unnamed))
    tasks = case.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise NpuError(f"{name} has no `tasks`, expected a list of objects with `words`")
    words: list[int] = []
    for task in tasks:
        texts = task.get("words")
        if not isinstance(texts, list):
            raise NpuError(
                f"{name} has a task without `words`, expected a list of sixteen hexadecimal digits each"
            )
        for text in texts:
            if not isinstance(text, str) or not _WORD.fullmatch(text):
                raise NpuError(f"{name}, word {len(words)} is {text!r}, expected sixteen hexadecimal digits")
            words.append(int(text, 16))
    if not words:
        raise NpuError(f"{name} has no words")
    return NamedStream(name, tuple(words))
