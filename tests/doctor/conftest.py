"""Healthy models of three families, small and random."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rockledge.conversion.convert import convert
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.pipeline import quantize
from rockledge.synth import SHAPES, synth_checkpoint

TOY = SHAPES["toy"]
FAMILIES = {
    "llama": TOY,
    "qwen2": replace(TOY, family="qwen2", qkv_bias=True, tied=False),
    "gemma2": replace(
        TOY, family="gemma2", branch_norms="both", activation="gelu_tanh", embedding_scale=96**0.5,
        attention_softcap=50.0, logit_softcap=30.0, windows=(8, 0), attention_scale=0.25,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products of PyTorch lose by threads where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By family: the checkpoint, and a healthy artifact of it; one of them calibrated."""
    folder, made = tmp_path_factory.mktemp("families"), {}
    for name, config in FAMILIES.items():
        source, out = synth_checkpoint(config, folder / name, seed=5), folder / f"{name}-artifact"
        if name == "qwen2":
            quantize(source, out, bits=5.0, tokens=512, force=True, fast=True)
        else:
            convert(open_checkpoint(source), out)
        made[name] = (source, out)
    return made


@pytest.fixture(scope="session")
def loud(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and a healthy artifact of it, in which attention and the last norm matter as they do
    in trained models: with random weights of the usual size every token is seen alike."""
    folder = tmp_path_factory.mktemp("loud")
    source = synth_checkpoint(TOY, folder / "source", seed=6)
    path = source / "model.safetensors"
    tensors = load_file(path)
    for name, values in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")):
            tensors[name] = values * 6
    tensors["model.norm.weight"] *= torch.linspace(0.2, 3, TOY.hidden)
    save_file(tensors, path, {"format": "pt"})
    convert(open_checkpoint(source), folder / "artifact")
    return source, folder / "artifact"
