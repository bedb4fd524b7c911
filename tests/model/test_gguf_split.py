"""GGUF models in parts: which part opens the model, and what is said of parts that do not fit."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.model.opened_cases import CASES, TOKENS, refused

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import forward


def test_a_split_gguf_loads_from_its_first_part_or_directory() -> None:
    directory = CASES / "f7_split"
    opened = [open_checkpoint(path) for path in (directory, directory / "m-00001-of-00002.gguf")]
    stored = {
        tensor.name: np.array(tensor.data)
        for part in sorted(directory.iterdir())
        for tensor in gguf.GGUFReader(part).tensors
    }
    for checkpoint in opened:
        assert len(checkpoint.names()) == len(stored) == 12
        for name, part in {
            "embed": "token_embd",
            "layers.0.attn.v": "blk.0.attn_v",
            "head": "output",
        }.items():
            np.testing.assert_array_equal(checkpoint.tensor(name), stored[part + ".weight"])
        assert forward(checkpoint, TOKENS).isfinite().all()


def test_the_second_part_of_a_split_gguf_names_the_first() -> None:
    refused(CASES / "f7_split/m-00002-of-00002.gguf", r"part 2 of 2 .*give m-00001-of-00002\.gguf or its")


@pytest.mark.parametrize("opened", ["", "m-00001-of-00002.gguf"])
def test_a_missing_part_is_named(opened: str, tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path)
    refused(tmp_path / opened, r"m-00002-of-00002\.gguf is missing beside it; fetch all parts")


def test_a_missing_first_part_is_named(tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00002-of-00002.gguf", tmp_path)
    refused(tmp_path, r"but not m-00001-of-00002\.gguf")


def test_parts_that_lost_their_names_are_refused(tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path / "model.gguf")
    refused(tmp_path / "model.gguf", r"does not end in -00001-of-00002\.gguf")


def test_parts_of_other_models_are_refused(tmp_path: Path) -> None:
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
        shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path / name)
    refused(tmp_path, r"m-00002-of-00002\.gguf says that it is part 0 of 2, expected 1 of 2")


def test_parts_whose_names_are_mixed_up_are_refused(tmp_path: Path) -> None:
    shutil.copy(CASES / "f7_split/m-00001-of-00002.gguf", tmp_path / "m-00002-of-00002.gguf")
    shutil.copy(CASES / "f7_split/m-00002-of-00002.gguf", tmp_path / "m-00001-of-00002.gguf")
    refused(tmp_path, r"m-00001-of-00002\.gguf says that it is part 2 of 2; the names of the parts were")


def test_a_part_that_is_cut_short_is_named(tmp_path: Path) -> None:
    shutil.copytree(CASES / "f7_split", tmp_path, dirs_exist_ok=True)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(second.read_bytes()[:-64])
    refused(tmp_path, r"m-00002-of-00002\.gguf is cut short")
