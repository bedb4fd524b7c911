"""The native runtime computes what the fake quantisation in floats computes, up to its int8 keys and
values, and stays near the float model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from bench import models
from rockledge.artifact import Artifact, open_artifact
from rockledge.eval.text import read_text
from rockledge.formats.packing import dequantize
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.float_model.forward import forward
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.reporting.fakequant import QuantisedLogits
from rockledge.quantization.transforming.rotate import rotated
from rockledge.runtime.engine import Engine
from rockledge.synth import synth_checkpoint


def divergence(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Mean KL, nats a token, of logits [tokens, vocab]."""
    p, q = (torch.log_softmax(torch.tensor(x).double(), dim=-1) for x in (expected, found))
    return float((p.exp() * (p - q)).sum(dim=-1).mean())


@dataclass(frozen=True)
class Stored:
    """The linears of an open artifact as real weights."""

    artifact: Artifact

    def weights(self, name: str, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(dequantize(self.artifact.linear(name))).to(device)

    def bias(self, name: str) -> npt.NDArray[np.float32] | None:
        return self.artifact.linear(name).bias


def agreement(source: Path, artifact_path: Path, window: list[int]) -> tuple[float, float]:
    """Divergence of native logits from the fake quantisation and from the float model."""
    checkpoint = open_checkpoint(source)
    artifact, model = open_artifact(artifact_path), rotated(checkpoint)
    fake = QuantisedLogits(
        Stored(artifact), model.tree, model.online, [window],
        planes=artifact.planes, stream=model.stream, head_input=model.head_input, gains=artifact.array,
    )  # fmt: skip
    with Engine.load(artifact_path, threads=1) as engine, torch.no_grad():
        native = engine.logits(window)
        to_float = divergence(forward(checkpoint, torch.tensor([window]))[0].numpy(), native)
    return divergence(fake(window), native), to_float


def test_native_logits_are_those_of_the_fake_quantisation(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(source, tmp_path / "out", bits=6.0, tokens=2048)
    window = np.random.default_rng(0).integers(0, 300, 64).tolist()
    to_fake, to_float = agreement(source, tmp_path / "out", window)
    assert to_fake < 1e-5
    assert to_fake < to_float < 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_model_is_what_its_report_says(tmp_path: Path) -> None:
    """SmolLM2 at 8 bits. Against the float model it keeps the project's goal for 8 bits, 0.01 nats, on text
    that calibration never saw. Native and fake quantisation share the errors of weights; those of rounded
    inputs take different ways after the first float that differs in its last bit, and keys and values are
    int8 in one only. Had they nothing in common, their distance would be the sum of both to the float
    model."""
    source = models.smollm2()
    report = quantize(source, tmp_path / "out", bits=8.05, tokens=3072)
    assert report.numbers["divergence"]["kl_mean_nats"] < 0.01
    tokenizer = Tokenizer.from_files(open_checkpoint(source).files())
    window = tokenizer.encode(read_text(models.alice())[:6000], bos=True)[:1024]
    to_fake, to_float = agreement(source, tmp_path / "out", window)
    assert to_float < 0.01
    assert to_fake < 2 * to_float
