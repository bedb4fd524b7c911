"""The safetensors container: the package's own files are read alike, damaged ones are refused with the
reason."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from tests.model.damage import damaged, read_or_refuse

from rockledge.errors import CheckpointError
from rockledge.model.safetensors_file import open_safetensors


def container(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, dtype: str = "F32", shape: list[int] | None = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_of_every_float_type_are_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    values = {
        "b.weight": torch.randn(5, 7).to(dtype),
        "a": torch.randn(3).to(dtype),
        "e": torch.zeros(0, 4).to(dtype),
    }
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(values, metadata={"format": "pt"}))
    file = open_safetensors(path)
    assert file.metadata == {"format": "pt"}
    assert set(file.entries) == set(values)
    for name, expected in values.items():
        found = file.read(name)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected.float().numpy())


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
        open_safetensors(path)


def test_types_that_are_no_floats_are_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(container({"a": entry(0, 8, dtype="I32")}, EIGHT))
    with pytest.raises(CheckpointError, match="a holds I32"):
        open_safetensors(path).read("a")


def test_a_file_cut_while_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(container({"a": entry(0, 8)}, EIGHT))
    file = open_safetensors(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="cut short while a was read"):
        file.read("a")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        open_safetensors(tmp_path / "none.safetensors")


WHOLE = save({"a.weight": torch.ones(4, 3), "b": torch.ones(2).half()}, metadata={"format": "pt"})


@given(damaged(WHOLE) | st.binary(max_size=64))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(content)

    def read() -> None:
        file = open_safetensors(path)
        for name in file.entries:
            file.read(name)

    read_or_refuse(read)
