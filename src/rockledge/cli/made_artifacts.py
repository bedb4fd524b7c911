"""The list of directories that `quantize` writes, so that `rockledge list` can name them: one JSON string
on a line."""

from __future__ import annotations

import json
from pathlib import Path

from rockledge import places
from rockledge.regular_file import read_regular


def remember(directory: str | Path) -> None:
    """Adds a directory. Where the list cannot be written the artifact is made all the same."""
    path, known = Path(directory).absolute(), remembered()
    if path in known:
        return
    file = places.made_artifacts()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and not file.is_file():  # a pipe would wait for a reader
            return
        with file.open("ab", buffering=0) as opened:  # one write, so that two runs do not mix their lines
            opened.write(json.dumps(str(path)).encode() + b"\n")
    except OSError:
        return


def remembered() -> list[Path]:
    """The directories, whether or not they are still there."""
    try:
        lines = read_regular(places.made_artifacts()).splitlines()
    except OSError:
        return []
    return list(dict.fromkeys(path for line in lines if (path := _path(line)) is not None))


def _path(line: bytes) -> Path | None:
    """None for a line that is damaged."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return Path(value) if isinstance(value, str) else None
