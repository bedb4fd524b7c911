"""The quick check of every tensor's first and last bytes."""

import errno
import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.artifact import open_artifact
from rockledge.artifact.ends import END, stored_ends
from rockledge.errors import ArtifactError
from rockledge.synth import synth_artifact
from rockledge.tensor_file import read_header


def tensors(path: Path) -> dict[str, tuple[int, int]]:
    """Where every tensor's bytes lie in the file."""
    header = read_header(path / "model.safetensors")
    start = header.data_start
    return {name: (start + entry.begin, start + entry.end) for name, entry in header.entries.items()}


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_damage_at_either_end_of_any_tensor_is_named(tmp_path: Path) -> None:
    path = synth_artifact("toy", tmp_path / "toy", seed=5)
    open_artifact(path).check_ends()
    whole = (path / "model.safetensors").read_bytes()
    for name, (begin, end) in tensors(path).items():
        for place in (begin, end - 1):
            overwrite(path, place, bytes([whole[place] ^ 0x40]))
            with pytest.raises(ArtifactError, match=f"is damaged: the checksum of {name} is wrong; fetch"):
                open_artifact(path).check_ends()
            overwrite(path, place, whole[place : place + 1])
    open_artifact(path).check_ends()


def test_an_artifact_from_before_is_opened_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rockledge.artifact import writer

    plain = json.dumps

    def without(value: object, **settings: object) -> str:
        kept = {k: v for k, v in value.items() if k != "ends"} if isinstance(value, dict) else value
        return plain(kept, **settings)

    monkeypatch.setattr(writer.json, "dumps", without)
    path = synth_artifact("toy", tmp_path / "toy")
    monkeypatch.undo()
    assert b'"ends' not in read_header(path / "model.safetensors").raw
    artifact = open_artifact(path)
    artifact.check_ends()
    artifact.verify()


@given(st.binary(min_size=1, max_size=5 * END), st.data())
def test_sums_are_those_of_zlib_however_the_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ends") / "file"
    path.write_bytes(content)
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(begin + 1, len(content)))
    tensor = content[begin:end]
    assert list(stored_ends(path, [(begin, end)])) == [f"{zlib.crc32(tensor[:4096] + tensor[-4096:]):08x}"]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP])
def test_what_is_not_cached_is_read_past_the_cache_or_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "file"
    content = os.urandom(3 * END + 77)
    path.write_bytes(content)
    os.sync()
    read = os.preadv

    def uncached(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise OSError(number, "not cached")
        return read(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", uncached)
    begin, end = 64, len(content) - 13
    tensor = content[begin:end]
    assert list(stored_ends(path, [(begin, end)])) == [f"{zlib.crc32(tensor[:4096] + tensor[-4096:]):08x}"]
