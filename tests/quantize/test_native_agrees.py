"""The native runtime computes what the fake quantisation in floats computes, up to its int8 keys and
values, and stays near the float model."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rockledge.artifact import open_artifact
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantize.fakequant import QuantisedLogits
from rockledge.quantize.pipeline import quantize
from rockledge.quantize.reference import forward
from rockledge.quantize.rotate import rotated
from rockledge.runtime.engine import Engine
from rockledge.synth import synth_checkpoint


def divergence(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Mean KL, nats a token, of logits [tokens, vocab]."""
    p, q = (torch.log_softmax(torch.tensor(x).double(), dim=-1) for x in (expected, found))
    return float((p.exp() * (p - q)).sum(dim=-1).mean())


def test_native_logits_are_those_of_the_fake_quantisation(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))
    window = np.random.default_rng(0).integers(0, 300, 64).tolist()
    quantize(checkpoint, tmp_path / "out", bits=6.0, tokens=2048)
    artifact, model = open_artifact(tmp_path / "out"), rotated(checkpoint)
    fake = QuantisedLogits(
        artifact, model.config, artifact.ffn_block, [window],
        planes=artifact.planes, head_input=model.head_input, gains=artifact.array,
    )  # fmt: skip
    with Engine.load(tmp_path / "out", threads=1) as engine, torch.no_grad():
        native = engine.logits(window)
        to_float = divergence(forward(checkpoint, torch.tensor([window]))[0].numpy(), native)
    to_fake = divergence(fake(window), native)
    assert to_fake < 1e-5
    assert to_fake < to_float < 0.01
