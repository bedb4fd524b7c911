"""Prefill with its linear layers through our programs on the emulator: int32 sums identical to the CPU path.

The reference's taps hand every linear's input to the programs and take their sums on; what the whole model
then says is what the native CPU path says.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.npu_lab.verify.prefill import npu_logits

from bench import models
from rockledge.artifact import open_artifact
from rockledge.eval.text import read_text
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization.float_model.forward import forward
from rockledge.quantization.pipeline import quantize
from rockledge.runtime.engine import Engine
from rockledge.synth import synth_checkpoint
from rockledge_npu_lab.verify.emulated import EmulatedNpu


def divergence(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Mean KL, nats a token, of logits [tokens, vocab]."""
    p, q = (torch.log_softmax(torch.tensor(x).double(), dim=-1) for x in (expected, found))
    return float((p.exp() * (p - q)).sum(dim=-1).mean())


def prefill(source: Path, artifact: Path, tokens: list[int]) -> tuple[int, int, float, float]:
    """Compared sums, products of the NPU, and divergence of its logits from the native CPU path's; that of
    the float model from these too."""
    npu = EmulatedNpu()
    logits, checked = npu_logits(source, artifact, tokens, npu.run)
    assert npu.flags == []
    with Engine.load(artifact, threads=1) as engine, torch.no_grad():
        native = engine.logits(tokens)
        floats = forward(open_checkpoint(source), torch.tensor([tokens]))[0].numpy()
    return checked, npu.macs, divergence(native, logits), divergence(native, floats)


def test_a_toy_prefill_is_that_of_the_cpu(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(source, tmp_path / "out", bits=7.0, tokens=2048)
    artifact = open_artifact(tmp_path / "out")
    assert {artifact.planes(name) for name in artifact.linears} == {1, 2}
    tokens = np.random.default_rng(0).integers(0, 300, 64).tolist()
    checked, macs, to_native, to_float = prefill(source, tmp_path / "out", tokens)
    assert checked > 64 * (2 * (96 + 2 * 32 + 96 + 2 * 208 + 96) + 300)
    assert macs > 64 * 2 * 96 * (96 + 2 * 32 + 96 + 3 * 208)
    assert to_native < 1e-5 < to_float


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_smollm2_prefill_is_that_of_the_cpu(tmp_path: Path) -> None:
    """Sums are compared layer by layer and are equal. The logits cannot be: keys and values are int8 in the
    native path only, and a float that differs in its last bit rounds another input."""
    source = models.smollm2()
    quantize(source, tmp_path / "out", bits=4.5, tokens=2048, fast=True)
    tokenizer = Tokenizer.from_files(open_checkpoint(source).files())
    tokens = tokenizer.encode(read_text(models.alice())[:2000], bos=True)[:128]
    checked, macs, to_native, to_float = prefill(source, tmp_path / "out", tokens)
    assert len(tokens) == 128
    assert checked >= 128 * (30 * (576 + 2 * 192 + 576 + 2 * 1536 + 576) + 49_152)
    assert macs >= 128 * 134_000_000
    assert to_native < to_float
