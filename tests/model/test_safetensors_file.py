"""Weights in safetensors files: the package's own files are read alike, bytes that cannot be are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from tests.model.damage import damaged, read_or_refuse
from tests.test_tensor_file import EIGHT, container, entry

from rockledge.errors import CheckpointError
from rockledge.model.safetensors_file import open_safetensors


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
    assert file.header.metadata == {"format": "pt"}
    assert set(file.header.entries) == set(values)
    for name, expected in values.items():
        found = file.read(name)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected.float().numpy())
        np.testing.assert_array_equal(np.concatenate([[], *file.blocks(name)]), found.ravel())


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


WHOLE = save({"a.weight": torch.ones(4, 3), "b": torch.ones(2).half()}, metadata={"format": "pt"})


@given(damaged(WHOLE) | st.binary(max_size=64))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(content)

    def read() -> None:
        file = open_safetensors(path)
        for name in file.header.entries:
            file.read(name)

    read_or_refuse(read)
