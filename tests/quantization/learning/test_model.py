"""The module that learns is the artifact it is written as: the same codes, the same logits from the native
runtime, for decoders of several forms."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.checkpoints import byte_vocabulary
from tests.quantization.forms import Held, form
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rockledge.artifact import open_artifact
from rockledge.formats.packing import dequantize
from rockledge.model.block import Attention
from rockledge.quantization import pipeline
from rockledge.quantization.choosing.recipe import Recipe
from rockledge.quantization.float_model.forward import attention
from rockledge.quantization.learning import model
from rockledge.quantization.learning.linear import LearningLinear
from rockledge.quantization.learning.model import LearningModel
from rockledge.quantization.learning.start import make_start, start_of
from rockledge.quantization.learning.written import write_learnt
from rockledge.quantization.steps import Steps
from rockledge.runtime.engine import Engine

TOKENS = torch.randint(0, 80, (2, 100), generator=torch.Generator().manual_seed(0))
QUICK = Steps(rounding="nearest", moments="diagonal", tables="normal", token_weights="equal")


@dataclass(frozen=True)
class WithTokenizer(Held):
    """A checkpoint in memory with a tokenizer of letters and no merges."""

    def files(self) -> dict[str, bytes]:
        words = [*byte_vocabulary(80)[0][:-1], "<last>"]
        tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return {"tokenizer.json": tokenizer.to_str().encode()}


Started = Callable[[str], LearningModel]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    """`started(name)`: the module of a form, at 6 bits by the steps that take least time."""
    monkeypatch.setattr(pipeline, "widths_picture", lambda plan, prices: None)
    letters = np.random.default_rng(1).integers(ord("a"), ord("z") + 1, 20000, np.uint8)
    (tmp_path / "text.txt").write_bytes(letters.tobytes())

    def made(name: str) -> LearningModel:
        held = form(name)[0]
        checkpoint = WithTokenizer(held.config, held.tensors)
        recipe = Recipe(name, 0, str(tmp_path / "text.txt"), "", 768, 6.0, None, {}, steps=QUICK)
        make_start(checkpoint, recipe, tmp_path / "place", "cpu", lambda stage, done, total: None)
        return start_of(checkpoint, tmp_path / "place")

    return made


def learn(trained: LearningModel, steps: int) -> list[float]:
    """Steps towards predicting `TOKENS`; the losses."""
    optimizer = torch.optim.AdamW(trained.parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(
            trained(TOKENS).logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Mean KL, nats a token, of logits [tokens, vocab]."""
    p, q = (logits.double().log_softmax(-1) for logits in (expected, found))
    return float((p.exp() * (p - q)).sum(-1).mean())


def logits_of(model: LearningModel) -> torch.Tensor:
    """Of the first sequence, fp32 [tokens, vocab]."""
    with torch.no_grad():
        return model(TOKENS[:1]).logits[0]


@pytest.mark.parametrize("name", ["gemma2", "llama-biases", "olmo2", "smollm3", "ministral3"])
def test_the_artifact_is_what_learnt(
    name: str, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what the last forward computed with. The runtime's logits are nearer to the module's than
    those of a module with float heads: sums in another order round some inputs to other integers, and noise
    of 3e-7 at queries, keys and values moves the module as far from itself."""
    trained = started(name)
    losses = learn(trained, 4)
    assert losses[-1] < 0.8 * losses[0]
    used: dict[int, torch.Tensor] = {}
    plain = LearningLinear.forward

    def recorded(self: LearningLinear) -> torch.Tensor:
        used[id(self)] = plain(self)
        return used[id(self)]

    monkeypatch.setattr(LearningLinear, "forward", recorded)
    expected = logits_of(trained)
    write_learnt(tmp_path / "out", trained, {}, "", False, lambda done, total: None)
    artifact = open_artifact(tmp_path / "out")
    artifact.verify()
    for linear in artifact.linears:
        weights = used[id(trained.linear(linear))]
        np.testing.assert_array_equal(dequantize(artifact.linear(linear)), weights.numpy(), err_msg=linear)
    with Engine.load(tmp_path / "out", threads=1) as engine:
        native = torch.tensor(engine.logits(TOKENS[0].tolist()))
    to_runtime = divergence(expected, native)
    assert to_runtime < 1e-3

    def float_heads(
        body: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **how: Any
    ) -> torch.Tensor:
        return attention(body, q, k, v, how["positions"])

    monkeypatch.setattr(model, "int8_attention", float_heads)
    assert to_runtime < 0.7 * divergence(logits_of(trained), native)


def test_documents_in_one_sequence_do_not_see_each_other(started: Started) -> None:
    trained = started("llama-biases")
    lengths = (60, 40)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.no_grad():
        found = trained(TOKENS[:1], positions).logits
        alone = [trained(part).logits for part in TOKENS[:1].split(lengths, dim=1)]
    assert divergence(torch.cat(alone, dim=1)[0], found[0]) < 5e-4
    assert divergence(logits_of(trained), found[0]) > 0.01


def test_computing_layers_twice_gives_the_same_gradients(started: Started) -> None:
    trained = started("smollm3")
    gradients = []
    for _ in range(2):
        trained.zero_grad()
        trained(TOKENS).logits.square().mean().backward()
        gradients.append([parameter.grad for parameter in trained.parameters()])
        trained.activation_checkpointing_enable()
    for plain, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, twice, rtol=0, atol=0)
