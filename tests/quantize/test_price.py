"""Prices against the truth: the divergence that a small change of one linear, or of its inputs, really
causes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.model.checkpoints import random_model, save

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantize.calibrate import (
    BlockStatistics,
    block_statistics,
    boundary,
    head_statistics,
    record_inputs,
)
from rockledge.quantize.fakequant import rounded_inputs
from rockledge.quantize.price import activation_price, band_prices, row_errors
from rockledge.quantize.reference import block_forward
from rockledge.quantize.rotate import RotatedModel, rotated
from rockledge.quantize.slices import Slices
from rockledge.quantize.store import WorkDirectory

LAYER = 0
PLACES = {
    "attn.q": "attn.in", "attn.k": "attn.in", "attn.v": "attn.in", "attn.o": "attn.o",
    "ffn.gate": "ffn.in", "ffn.up": "ffn.in", "ffn.down": "ffn.down",
}  # fmt: skip
Tap = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """A tiny model with the statistics of its first block and of its head, and the float
    log-probabilities."""

    model: RotatedModel
    tokens: torch.Tensor
    block: BlockStatistics
    head_sensitivity: torch.Tensor
    head_moments: torch.Tensor
    expected: torch.Tensor

    def divergence(
        self, role: str | None = None, delta: torch.Tensor | float = 0.0, tap: Tap | None = None
    ) -> float:
        """True KL, nats a token, with `delta` added to one linear (of block 0, or the head) or inputs
        tapped."""
        with torch.no_grad():
            x = self.model.embedding()[self.tokens]
            for layer in range(self.model.config.layers):
                weights = self.model.block_weights(layer, online=False)
                if layer == LAYER and role in weights:
                    weights[role] = weights[role] + delta
                x = block_forward(weights, x, self.model.config, tap if layer == LAYER else None)
            head = self.model.head() + (delta if role == "head" else 0.0)
            found = F.log_softmax((self.model.head_input(x) @ head.T).double(), dim=-1)
        return float((self.expected.exp() * (self.expected - found)).sum(dim=-1).mean())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("price")
    model = rotated(open_checkpoint(save(random_model("llama3"), folder)))
    tokens = np.random.default_rng(0).integers(0, 80, (48, 48))
    work, slices = WorkDirectory(folder / "work"), Slices()
    record_inputs(model, tokens, work, slices, lambda done, total: None)
    shape = (*tokens.shape, model.config.hidden)
    inputs = [work.array(boundary(layer), shape) for layer in range(model.config.layers + 1)]
    gradients = np.empty(shape, np.float32)
    head = head_statistics(model, inputs[-1], gradients, 0, slices)
    for layer in reversed(range(model.config.layers)):
        weights = model.block_weights(layer, online=False)
        block, gradients = block_statistics(model, weights, inputs[layer], gradients, slices)
    with torch.no_grad():
        logits = model.head_input(torch.from_numpy(inputs[-1])) @ model.head().T
    expected = F.log_softmax(logits.double(), dim=-1)
    return Measured(model, torch.from_numpy(tokens), block, head.sensitivity, head.inputs.moments, expected)


@pytest.mark.parametrize("role", PLACES)
def test_the_price_of_a_linear_is_the_divergence_it_causes(role: str, measured: Measured) -> None:
    w = measured.model.block_weights(LAYER, online=False)[role]
    delta = 0.01 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    moments = measured.block.inputs[PLACES[role]].moments
    price = 0.5 * float((measured.block.sensitivity[role] * row_errors(delta, moments)).sum())
    assert 0.6 < price / measured.divergence(role, delta) < 1.7


def test_the_price_of_the_head_is_the_divergence_it_causes(measured: Measured) -> None:
    w = measured.model.head()
    delta = 0.01 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(2))
    price = 0.5 * float((measured.head_sensitivity * row_errors(delta, measured.head_moments)).sum())
    assert 0.6 < price / measured.divergence("head", delta) < 1.7


def test_the_price_of_rounding_inputs_is_the_divergence_it_causes(measured: Measured) -> None:
    weights = measured.model.block_weights(LAYER, online=False)
    step = measured.block.inputs["ffn.in"].squared_step
    price = sum(
        activation_price(weights[role], measured.block.sensitivity[role], step)
        for role in ("ffn.gate", "ffn.up")
    )
    truth = measured.divergence(tap=lambda place, x: rounded_inputs(x, 1) if place == "ffn.in" else x)
    assert 0.4 < price / truth < 2.5


def test_bands_share_out_the_rows() -> None:
    assert band_prices(torch.tensor([1.0, 2.0, 4.0, 8.0]), [(0, 1), (1, 3)]) == [1.0, 14.0]
