"""Heads of any even size, from a checkpoint to logits, beside transformers on the same directory."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.model.checkpoints import MODELS, random_model, save
from tests.native.one_op import supported_kernels
from transformers import AutoModelForCausalLM

from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.hf_config import config_from_hf
from rockledge.quantization.float_model.forward import forward
from rockledge.quantization.pipeline import quantize
from rockledge.runtime.engine import Engine
from rockledge.synth import model_files

CASE = Path(__file__).parents[2] / "model" / "cases" / "f6_hd100"
VOCAB = 300
WINDOW = np.random.default_rng(5).integers(3, VOCAB, 120).tolist()
# Sizes that are, and are not, multiples of a tile, of a vector of eight, of a power of two.
SIZES = [(2, "llama3"), (34, "qwen2"), (50, "qwen3-tied"), (80, "qwen2.5-tied"), (96, "mistral"),
         (100, "qwen2"), (256, "llama3")]  # fmt: skip


def checkpoint_of(name: str, head_dim: int, path: Path) -> Path:
    """A random model of `tests.model.checkpoints.MODELS` with heads of that size, and a tokenizer."""
    settings = MODELS[name][1].get("rope_parameters", {"rope_theta": 10000.0})
    model = random_model(name, head_dim=head_dim, vocab_size=VOCAB, rope_parameters=settings)
    save(model, path)
    for file, data in model_files(config_from_hf(model.config.to_dict())).items():
        (path / file).write_bytes(data)
    return path


def divergence(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Mean KL, nats a token, of logits [tokens, vocab]."""
    p, q = (torch.log_softmax(torch.tensor(x).double(), dim=-1) for x in (expected, found))
    return float((p.exp() * (p - q)).sum(dim=-1).mean())


def transformers_logits(path: Path) -> Any:
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        return model(torch.tensor([WINDOW])).logits[0].numpy()


def check(source: Path, artifact: Path, most: float) -> None:
    """An 8-bit artifact of `source` gives the same logits with every kernel, near those of transformers."""
    expected = transformers_logits(source)
    assert expected.std() > 0.1  # else anything would agree
    with torch.no_grad():
        floats = forward(open_checkpoint(source), torch.tensor([WINDOW]))[0].numpy()
    np.testing.assert_allclose(floats, expected, rtol=1e-4, atol=1e-4)
    quantize(source, artifact, bits=12.0, tokens=2048, fast=True)
    found = []
    for kernel in supported_kernels():
        with Engine.load(artifact, threads=2, kernel=kernel) as engine:
            found.append(engine.logits(WINDOW))
            assert np.array_equal(engine.logits(WINDOW, chunk=7), found[0]), kernel
    for logits in found[1:]:
        assert np.array_equal(logits, found[0])
    assert divergence(expected, found[0]) < most


def test_heads_of_100_run(tmp_path: Path) -> None:
    check(CASE, tmp_path / "out", 0.002)


@pytest.mark.parametrize("head_dim, name", SIZES)
def test_heads_of_any_even_size_run(head_dim: int, name: str, tmp_path: Path) -> None:
    check(checkpoint_of(name, head_dim, tmp_path / "model"), tmp_path / "out", 0.005)
