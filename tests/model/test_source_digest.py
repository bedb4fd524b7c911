"""Which checkpoint an artifact was made from."""

from pathlib import Path

import numpy as np

from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.source_digest import source_digest
from rockledge.synth import synth_checkpoint
from rockledge.tensor_file import read_header


def digest(path: Path) -> str:
    return source_digest(open_checkpoint(path))


def test_the_same_weights_have_the_same_digest_and_others_do_not(tmp_path: Path) -> None:
    one = synth_checkpoint("toy", tmp_path / "one", seed=1)
    same = synth_checkpoint("toy", tmp_path / "same", seed=1)
    other = synth_checkpoint("toy", tmp_path / "other", seed=2)
    assert digest(one) == digest(same) != digest(other)


def test_one_changed_norm_is_another_model(tmp_path: Path) -> None:
    path = synth_checkpoint("toy", tmp_path / "one", seed=1)
    before = digest(path)
    header = read_header(path / "model.safetensors")
    entry = header.entries["model.layers.1.input_layernorm.weight"]
    with open(path / "model.safetensors", "r+b") as file:
        file.seek(header.data_start + entry.begin)
        file.write(np.array([0x3F90], "<u2").tobytes())  # 1.125 in bfloat16
    assert digest(path) != before
