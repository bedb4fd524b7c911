"""Texts are read byte for byte, and what is no text is refused in one sentence."""

from pathlib import Path

import pytest

from rockledge.errors import UsageError
from rockledge.eval.text import read_text


def test_line_ends_survive(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("one\r\ntwo\nthrée\r\n".encode())
    assert read_text(path) == "one\r\ntwo\nthrée\r\n"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        read_text(tmp_path / "missing.txt")
    with pytest.raises(UsageError, match="could not be read"):
        read_text(tmp_path)
    path = tmp_path / "latin1"
    path.write_bytes("abc é".encode("latin-1"))
    with pytest.raises(UsageError, match="byte 4"):
        read_text(path)
