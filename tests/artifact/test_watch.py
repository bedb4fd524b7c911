"""What an artifact in use notices of changes to its file."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rockledge.artifact import open_artifact
from rockledge.artifact.layout import TENSORS
from rockledge.artifact.watch import ArtifactWatch
from rockledge.errors import ArtifactError
from rockledge.synth import synth_artifact


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synth_artifact("toy", tmp_path / "toy", seed=2)


@pytest.fixture
def watch(path: Path) -> Iterator[ArtifactWatch]:
    with ArtifactWatch(open_artifact(path)) as made:
        yield made


def test_nothing_is_seen_where_nothing_happens(watch: ArtifactWatch) -> None:
    assert not watch.changed()
    watch.check_ends()


def test_a_write_is_seen_once(watch: ArtifactWatch, path: Path) -> None:
    with open(path / TENSORS, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(byte)
    assert watch.changed()
    assert not watch.changed()
    watch.check_ends()


def test_a_write_without_a_time_stamp_is_seen_by_the_ends(watch: ArtifactWatch, path: Path) -> None:
    before = os.stat(path / TENSORS)
    with open(path / TENSORS, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path / TENSORS, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not watch.changed()
    with pytest.raises(ArtifactError, match=r"the checksum of .* is wrong"):
        watch.check_ends()


def test_a_file_cut_short_is_damage(watch: ArtifactWatch, path: Path) -> None:
    size = os.path.getsize(path / TENSORS)
    os.truncate(path / TENSORS, size - 1)
    with pytest.raises(ArtifactError, match=f"has {size - 1} bytes, expected {size}: it was cut short"):
        watch.changed()


@pytest.mark.parametrize("gone", [False, True])
def test_another_file_of_the_same_name_is_noted_and_no_damage(
    watch: ArtifactWatch, path: Path, caplog: pytest.LogCaptureFixture, gone: bool
) -> None:
    if gone:
        (path / TENSORS).unlink()
    else:
        shutil.copy(path / TENSORS, path / "new")
        os.truncate(path / "new", 5000)
        os.replace(path / "new", path / TENSORS)
    assert not watch.changed()
    assert not watch.changed()
    watch.check_ends()
    assert caplog.text.count("is another file now, or gone") == 1


def test_a_longer_file_is_not_short(watch: ArtifactWatch, path: Path) -> None:
    with open(path / TENSORS, "ab") as file:
        file.write(b"x")
    assert watch.changed()
    watch.check_ends()
