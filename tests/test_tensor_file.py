"""The safetensors container: damaged headers are refused with the reason, whoever asks."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from rockledge.errors import ArtifactError, CheckpointError
from rockledge.tensor_file import PAGE, header_bytes, place, read_header


def container(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, dtype: str = "F32", shape: list[int] | None = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


EIGHT = bytes(8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "only 0 bytes"),
        (b"\x10\x00", "only 2 bytes"),
        (struct.pack("<Q", 1 << 40) + EIGHT, "claims 1099511627776 bytes"),
        (struct.pack("<Q", 100_000_001) + EIGHT, "claims 100000001 bytes"),
        (struct.pack(">Q", 2) + b"{}", "big-endian"),
        (container(b"\xff\xfe"), "not JSON"),
        (container(b"[" * 100_000), "not JSON"),
        (container(b"[]"), "not an object"),
        (container(b'{"a": {}, "a": {}}'), "a name occurs twice"),
        (container({"__metadata__": {"a": 1}}), "object of strings"),
        (container({"a": 3}), "'a' is malformed"),
        (container({"a": {"dtype": "F32", "shape": [1]}}), "'a' is malformed"),
        (container({"a": entry(0, 4, shape=[-1])}, EIGHT), "malformed"),
        (container({"a": entry(0, 4, shape=[True])}, EIGHT), "malformed"),
        (container({"a": entry(0, 8, dtype="F31")}, EIGHT), "unknown type 'F31'"),
        (container({"a": entry(0, 8, shape=[3])}, EIGHT), "cannot be 8 bytes"),
        (container({"a": entry(0, 8, shape=[2**62, 2**62])}, EIGHT), "cannot be 8 bytes"),
        (container({"a": entry(8, 0, shape=[0])}, EIGHT), "cannot be -8 bytes"),
        (container({"a": entry(0, 8), "b": entry(8, 16)}, EIGHT), "cut short: b ends"),
        (container({"a": entry(0, 8), "b": entry(4, 12)}, EIGHT + EIGHT), "b overlaps a"),
        (container({"a": entry(0, 4), "b": entry(8, 12)}, EIGHT + EIGHT), "hole after a"),
        (container({"a": entry(0, 4)}, EIGHT), "4 bytes after its last tensor"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_header(path, CheckpointError)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: no such file"):
        read_header(tmp_path / "none.safetensors", CheckpointError)


def test_a_git_lfs_pointer_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ArtifactError, match="Git LFS pointer, not the file itself; run `git lfs pull` in"):
        read_header(path)


def test_what_is_written_starts_on_a_page_and_the_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entries = place([("a", "F32", (2, 3)), ("b", "I8", (5,))])
    data = np.arange(6, dtype=np.float32).tobytes() + bytes([1, 2, 3, 4, 5])
    path.write_bytes(header_bytes(entries, {"format": "pt"}) + data)
    assert read_header(path).data_start == PAGE
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}
        np.testing.assert_array_equal(file.get_tensor("a"), np.arange(6, dtype=np.float32).reshape(2, 3))
        np.testing.assert_array_equal(file.get_tensor("b"), [1, 2, 3, 4, 5])
