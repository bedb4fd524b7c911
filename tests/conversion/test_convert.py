"""A converted checkpoint answers as the float model does, up to what its rounding costs; nothing half-made is
left."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.model.checkpoints import random_model, save, write_gguf

from rockledge import __version__
from rockledge.artifact import open_artifact
from rockledge.conversion.convert import convert
from rockledge.errors import UsageError
from rockledge.formats.packing import dequantize
from rockledge.model.checkpoint import StoredCheckpoint, open_checkpoint
from rockledge.model.source_digest import source_digest
from rockledge.runtime.engine import Engine
from rockledge.synth import model_files, synth_checkpoint

TOKENS = [1, 40, 3, 17, 55, 60, 9, 22]


class WithTokenizer:
    """A checkpoint of transformers' with the small files that an artifact needs."""

    def __init__(self, below: StoredCheckpoint) -> None:
        self._below = below

    def __getattr__(self, name: str) -> object:
        return getattr(self._below, name)

    def files(self) -> dict[str, bytes]:
        return model_files(self._below.config)


@pytest.mark.parametrize("name", ["llama3", "smollm", "qwen2.5-tied", "qwen3"])
@pytest.mark.parametrize("gguf", [False, True])
def test_eight_bits_give_the_float_models_logits(name: str, gguf: bool, tmp_path: Path) -> None:
    model = random_model(name, vocab_size=300)
    source = (
        write_gguf(tmp_path / "m.gguf", model, tokenizer=False) if gguf else save(model, tmp_path / "model")
    )
    out = convert(WithTokenizer(open_checkpoint(source)), tmp_path / "out", bits=20)  # type: ignore[arg-type]
    with Engine.load(out, threads=1) as engine, torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([TOKENS])).logits[0].double(), -1)
        found = torch.log_softmax(torch.tensor(engine.logits(TOKENS)).double(), -1)
    assert float((expected.exp() * (expected - found)).sum(-1).mean()) < 0.02


def test_stored_weights_are_the_rotated_ones_up_to_rounding(tmp_path: Path) -> None:
    from rockledge.quantization.steps import Steps
    from rockledge.quantization.transforming.rotate import rotated

    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))
    artifact = open_artifact(convert(checkpoint, tmp_path / "out", bits=7.0))
    expected = rotated(checkpoint, 0, steps=Steps(balance=False)).block_weights(1)
    for role in ("attn.q", "attn.v", "ffn.down"):
        linear = artifact.linear(f"layers.1.{role}")
        weights = expected[role].numpy()
        bits = linear.bands[0].bits
        lost = np.square(dequantize(linear) - weights).sum() / np.square(weights).sum()
        assert lost < {3: 0.025, 4: 0.007, 8: 1e-4}[bits]


def test_the_same_source_makes_the_same_bytes(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))
    one, other = (
        convert(checkpoint, tmp_path / name, threads=n, bits=7.0) for name, n in (("a", 1), ("b", 2))
    )
    for name in ("model.safetensors", "report.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_the_report_says_how_it_was_made(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))
    out = convert(
        checkpoint, tmp_path / "out", bits=7.0, seed=3, command="rockledge quantize model --instant"
    )
    artifact = open_artifact(out)
    numbers = artifact.report
    assert numbers is not None
    assert numbers["source_sha256"] == source_digest(checkpoint)
    assert numbers["tensor_bytes"] == artifact.tensor_bytes
    assert numbers["parameters"] == artifact.parameters
    assert numbers["calibrated"] is False
    assert sum(part["weights"] for part in numbers["parts"]) == sum(
        linear.rows * linear.cols for linear in artifact.linears.values()
    )
    text = (out / "report.md").read_text()
    made = text.partition("## How it was made")[2].splitlines()
    assert "- command: `rockledge quantize model --instant`" in made
    assert f"- version: {__version__}" in made
    assert "- calibration text: none; rounded to the nearest from the weights alone" in made
    assert "- seed: 3" in made
    assert any(line.startswith("- steps: rotate hadamard,") and "rounding nearest" in line for line in made)
    for start in ("- time: ", "- peak memory: "):
        assert any(line.startswith(start) for line in made)


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))

    def stop(stage: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "out", bits=7.0, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("bits", [0, -1, 40, float("nan")])
def test_senseless_budgets_are_refused(bits: float, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))
    with pytest.raises(UsageError, match="bits a weight"):
        convert(checkpoint, tmp_path / "out", bits=bits)
