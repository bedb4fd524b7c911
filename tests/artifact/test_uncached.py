"""Reads that leave nothing in the page cache."""

import errno
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rockledge.artifact.uncached import UncachedFile
from rockledge.errors import ArtifactError, DiskError

CONTENT = bytes(range(251)) * 40_000  # more than a part, and no whole number of blocks


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("uncached") / "file"
    place.write_bytes(CONTENT)
    return place


@given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_parts_are_the_bytes_of_the_file(path: Path, one: int, other: int) -> None:
    begin, end = sorted((one, other))
    with UncachedFile(path) as file:
        assert b"".join(bytes(part) for part in file.parts(begin, end)) == CONTENT[begin:end]


def test_without_direct_reads_the_bytes_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are only refused once the file is open."""
    read = os.preadv
    direct: list[int] = []

    def refusing(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if not direct:
            direct.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    with UncachedFile(path) as file:
        assert not file.direct
        assert file.buffered_because == "invalid argument"
        assert b"".join(bytes(part) for part in file.parts(0, len(CONTENT))) == CONTENT


def test_buffered_reads_that_give_less_than_was_asked_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a network's file system may, by any number of bytes; direct ones end on whole blocks."""
    read, lengths = os.preadv, itertools.cycle([100, 5000, 1, 70_000])

    refused: list[bool] = []

    def short(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if not refused:
            refused.append(True)
            raise OSError(errno.EINVAL, "Invalid argument")
        return read(descriptor, [buffers[0][: next(lengths)]], offset)

    monkeypatch.setattr(os, "preadv", short)
    with UncachedFile(path) as file:
        assert not file.direct
        assert b"".join(bytes(part) for part in file.parts(0, 200_000)) == CONTENT[:200_000]


def test_a_disk_that_fails_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with UncachedFile(path) as file:
        monkeypatch.setattr(os, "preadv", failing)
        with pytest.raises(DiskError, match=r"cannot be read \(input/output error\); check the disk"):
            list(file.parts(0, 100))
    with pytest.raises(DiskError, match="input/output error"):  # and says nothing about direct reads
        UncachedFile(path)
    with pytest.raises(DiskError, match="no such file"):
        UncachedFile(path.with_name("another"))


def test_a_file_that_becomes_shorter_is_a_sentence(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(CONTENT)
    with UncachedFile(place) as file:
        os.truncate(place, 5000)
        with pytest.raises(ArtifactError, match="cut short"):
            list(file.parts(0, len(CONTENT)))
