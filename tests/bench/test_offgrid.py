"""Models moved off the grid: equal logits, another weight wherever a c may go, two equal files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.model.checkpoints import random_model, save
from tests.model.checkpoints import write_gguf as write_source

from bench.models import UnavailableError
from bench.offgrid import HIGHEST, LOWEST, OffGrid, float_files, write_gguf
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model.forward import forward

TOKENS = torch.tensor([[5, 17, 3, 70, 22, 9, 9, 41, 1, 66, 30, 12]])
FAMILIES = ["smollm", "llama3", "mistral", "qwen2", "qwen2.5-tied", "qwen3", "qwen3-tied"]


def logits(checkpoint: Checkpoint) -> np.ndarray:
    with torch.no_grad():
        return forward(checkpoint, TOKENS).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_stay_and_weights_move(name: str, tmp_path: Path) -> None:
    source = open_checkpoint(save(random_model(name), tmp_path / name))
    moved = OffGrid(source)
    expected = logits(source)
    np.testing.assert_allclose(logits(moved), expected, atol=2e-5 * np.abs(expected).max())
    unmoved = {"embed"} | ({"final_norm"} if source.config.tied else set())
    unmoved |= {f"layers.{i}.attn.{n}" for i in range(2) for n in ("q_norm", "k_norm", "q.bias", "k.bias")}
    for tensor in source.names():
        ratio = moved.tensor(tensor) / source.tensor(tensor)
        if tensor in unmoved:
            assert (ratio == 1).all(), tensor
        else:
            assert np.unique(np.round(ratio, 5)).size >= min(ratio.size, 16) / 2, tensor
            assert ratio.min() > LOWEST / HIGHEST / 1.001, tensor
            assert ratio.max() < HIGHEST / LOWEST * 1.001, tensor


def test_factors_are_log_uniform_and_depend_on_the_seed(tmp_path: Path) -> None:
    source = open_checkpoint(save(random_model("smollm", hidden_size=768), tmp_path / "a"))
    factors = OffGrid(source).tensor("layers.0.attn.norm") / source.tensor("layers.0.attn.norm")
    places = np.log(factors / LOWEST) / np.log(HIGHEST / LOWEST)
    assert 0 <= places.min() < 0.02
    assert 0.98 < places.max() <= 1
    assert places.mean() == pytest.approx(0.5, abs=0.05)
    assert places.std() == pytest.approx(12**-0.5, abs=0.03)
    again, other = OffGrid(source), OffGrid(source, seed=2)
    assert (again.tensor("layers.0.ffn.up") == OffGrid(source).tensor("layers.0.ffn.up")).all()
    assert (again.tensor("layers.0.ffn.up") != other.tensor("layers.0.ffn.up")).mean() > 0.99


@pytest.mark.parametrize("name", ["smollm", "llama3", "qwen2.5-tied"])
def test_both_files_hold_the_same_numbers(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    source = write_source(tmp_path / "source.gguf", model)
    wanted = OffGrid(open_checkpoint(source))
    directory, gguf = float_files("small", wanted, tmp_path)
    ours, theirs = open_checkpoint(directory), open_checkpoint(gguf)
    assert ours.names() == theirs.names() == wanted.names()
    for tensor in wanted.names():
        assert (ours.tensor(tensor) == wanted.tensor(tensor)).all(), tensor
        assert (theirs.tensor(tensor) == wanted.tensor(tensor)).all(), tensor
    original = open_checkpoint(source)
    assert theirs.config == original.config
    assert ours.config == original.config
    assert set(theirs.files()) == set(original.files())
    assert theirs.files()["tokenizer.json"] == original.files()["tokenizer.json"]
    assert not list(tmp_path.glob("*.partial"))


def test_two_roundings_of_a_tied_matrix_are_joined(tmp_path: Path) -> None:
    source = open_checkpoint(save(random_model("qwen2"), tmp_path / "untied"))
    joined = OffGrid(source, retie=True)
    assert joined.config.tied
    assert "head" not in joined.names()
    assert (joined.tensor("embed") == source.tensor("head")).all()
    assert (joined.tensor("final_norm") == source.tensor("final_norm")).all()


def test_scaled_rotary_embeddings_are_refused(tmp_path: Path) -> None:
    model = random_model("llama-linear")
    source = write_source(tmp_path / "source.gguf", random_model("llama3"))
    moved = OffGrid(open_checkpoint(save(model, tmp_path / "scaled")))
    with pytest.raises(UnavailableError, match="rotary"):
        write_gguf(moved, source, tmp_path / "target.gguf")
