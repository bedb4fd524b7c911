"""Prices against the truth: the divergence that a small change of one linear, or of its inputs, really
causes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from tests.model.checkpoints import random_model, save
from tests.quantization.forms import form

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.calibration.calibrate import (
    BlockStatistics,
    HeadStatistics,
    block_statistics,
    boundary,
    head_statistics,
    record_inputs,
)
from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.reporting.fakequant import rounded_inputs
from rockledge.quantization.rounding.candidates import Term
from rockledge.quantization.rounding.measure import embedding_term
from rockledge.quantization.rounding.price import activation_price, band_prices, row_errors
from rockledge.quantization.steps import Steps
from rockledge.quantization.transforming.hadamard import hadamard
from rockledge.quantization.transforming.rotate import RotatedModel, rotated
from rockledge.quantization.work.slices import Slices
from rockledge.quantization.work.store import WorkDirectory

LAYER = 0
ROLES = ("attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down")
Tap = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """A tiny model with the statistics of its first layer, of its head and of its embedding, and the float
    log-probabilities."""

    model: RotatedModel
    tokens: torch.Tensor
    block: BlockStatistics
    head: HeadStatistics
    embedding: Term
    expected: torch.Tensor

    def divergence(
        self, role: str | None = None, delta: torch.Tensor | float = 0.0, tap: Tap | None = None
    ) -> float:
        """True KL, nats a token, with `delta` added to one linear (of block 0, or the head) or inputs
        tapped."""
        model, turn = self.model, self.model.taps(online=False)

        def tapped(place: str, x: torch.Tensor) -> torch.Tensor:
            return turn(place, x) if tap is None else tap(place, turn(place, x))

        with torch.no_grad():
            embedding = model.embedding() + (delta if role == "embed" else 0.0)
            x = model.stream(embedding[self.tokens])
            for layer in range(model.config.layers):
                weights = model.block_weights(layer, online=False)
                if layer == LAYER and role in weights:
                    weights[role] = weights[role] + delta
                x = block_forward(weights, x, model.tree, layer, tapped if layer == LAYER else turn)
            head = model.head() + (delta if role == "head" else 0.0)
            found = F.log_softmax(finished(model.head_input(x) @ head.T, model.tree).double(), dim=-1)
        return float((self.expected.exp() * (self.expected - found)).sum(dim=-1).mean())


def measure(model: RotatedModel, tokens: npt.NDArray[np.int64], folder: Path) -> Measured:
    work, slices = WorkDirectory(folder / "work"), Slices()
    record_inputs(model, tokens, work, slices, lambda done, total: None)
    shape = (*tokens.shape, model.config.hidden)
    inputs = [work.array(boundary(layer), shape) for layer in range(model.config.layers + 1)]
    gradients = np.empty(shape, np.float32)
    head = head_statistics(model, inputs[-1], gradients, 0, slices)
    for layer in reversed(range(model.config.layers)):
        weights = model.block_weights(layer, online=False)
        block, gradients = block_statistics(model, layer, weights, inputs[layer], gradients, slices)
    with torch.no_grad():
        products = model.head_input(torch.from_numpy(inputs[-1])) @ model.head().T
        logits = finished(products, model.tree)
    expected = F.log_softmax(logits.double(), dim=-1)
    embedding = embedding_term(model, head, gradients, tokens)
    return Measured(model, torch.from_numpy(tokens), block, head, embedding, expected)


@pytest.fixture(scope="module", params=["llama3", "gemma2", "granite"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A plain model; one whose stream is not turned, with soft caps; one with scales, not tied."""
    folder = tmp_path_factory.mktemp("price")
    plain = request.param == "llama3"
    model = rotated(
        open_checkpoint(save(random_model("llama3"), folder)) if plain else form(request.param)[0]
    )
    return measure(model, np.random.default_rng(0).integers(0, 80, (48, 48)), folder)


@pytest.fixture(scope="module")
def massive_first_token(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A model that answers its BOS token, and no other, with a massive activation in front of down."""
    folder = tmp_path_factory.mktemp("massive")
    source, bos = random_model("llama3"), 1
    block = source.model.layers[LAYER]
    with torch.no_grad():
        # One direction of the residual stream belongs to BOS, and one channel answers to it.
        source.model.embed_tokens.weight[:, 0] = 0
        source.model.embed_tokens.weight[bos, 0] = 20
        block.self_attn.o_proj.weight[0] = 0
        block.mlp.gate_proj.weight[5, 0] = 5
        block.mlp.up_proj.weight[5, 0] = 5
    tokens = np.random.default_rng(0).integers(2, 80, (48, 48))
    tokens[:, 0] = bos
    return measure(rotated(open_checkpoint(save(source, folder))), tokens, folder)


def test_an_error_that_meets_a_massive_first_token_costs_what_that_token_is_worth(
    massive_first_token: Measured, tmp_path: Path
) -> None:
    model = replace(massive_first_token.model, steps=Steps(token_weights="equal"))
    equal = measure(model, massive_first_token.tokens.numpy(), tmp_path).block
    w = model.block_weights(LAYER, online=False)["ffn.down"]
    delta = 0.01 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(3))
    truth = massive_first_token.divergence("ffn.down", delta)

    def price(block: BlockStatistics) -> float:
        return 0.5 * float(
            (block.sensitivity["ffn.down"] * row_errors(delta, block.moments["ffn.down"])).sum()
        )

    assert 1 / 3 < price(massive_first_token.block) / truth < 3
    assert price(equal) > 30 * truth


def test_the_price_of_the_embedding_is_the_divergence_it_causes(measured: Measured) -> None:
    w = measured.model.embedding()
    delta = 0.01 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(3))
    term = measured.embedding
    price = 0.5 * float((term.sensitivity * row_errors(delta, term.moments)).sum())
    assert 0.6 < price / measured.divergence("embed", delta) < 1.7


@pytest.mark.parametrize("role", ROLES)
def test_the_price_of_a_linear_is_the_divergence_it_causes(role: str, measured: Measured) -> None:
    w = measured.model.block_weights(LAYER, online=False)[role]
    delta = 0.01 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    moments = measured.block.moments[role]
    price = 0.5 * float((measured.block.sensitivity[role] * row_errors(delta, moments)).sum())
    assert 0.6 < price / measured.divergence(role, delta) < 1.7


def test_the_price_of_the_head_is_the_divergence_it_causes(measured: Measured) -> None:
    w = measured.model.head()
    delta = 0.01 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(2))
    price = 0.5 * float((measured.head.sensitivity * row_errors(delta, measured.head.moments)).sum())
    assert 0.6 < price / measured.divergence("head", delta) < 1.7


def rounding_of(place: str, block: int = 0) -> Tap:
    """Inputs at one place as int8 holds them, behind down's online Hadamard."""

    def tap(where: str, x: torch.Tensor) -> torch.Tensor:
        if where != place:
            return x
        return hadamard(rounded_inputs(hadamard(x, block), 1), block) if block else rounded_inputs(x, 1)

    return tap


@pytest.mark.parametrize("place", ["attn.in", "attn.o", "ffn.in", "ffn.down"])
def test_the_price_of_rounding_inputs_is_the_divergence_it_causes(place: str, measured: Measured) -> None:
    block = measured.model.online["ffn.down"] if place == "ffn.down" else 0
    price = activation_price(measured.block.rounding[place])
    assert 0.6 < price / measured.divergence(tap=rounding_of(place, block)) < 1.7


def test_the_price_of_rounding_the_heads_input_is_the_divergence_it_causes(measured: Measured) -> None:
    with torch.no_grad():
        model = measured.model
        x = model.stream(model.embedding()[measured.tokens])
        for layer in range(model.config.layers):
            weights = model.block_weights(layer, online=False)
            x = block_forward(weights, x, model.tree, layer, model.taps(online=False))
        rounded = rounded_inputs(model.head_input(x), 1)
        found = F.log_softmax(finished(rounded @ model.head().T, model.tree).double(), dim=-1)
    truth = float((measured.expected.exp() * (measured.expected - found)).sum(dim=-1).mean())
    assert 0.6 < activation_price(measured.head.rounding) / truth < 1.7


def test_a_massive_activation_of_the_first_token_alone_is_not_charged_to_all(
    massive_first_token: Measured,
) -> None:
    model, statistics = massive_first_token.model, massive_first_token.block
    steps: list[torch.Tensor] = []

    def keep_steps(place: str, x: torch.Tensor) -> torch.Tensor:
        if place == "ffn.down":
            steps.append(hadamard(x, model.online["ffn.down"]).abs().amax(dim=-1) / 127)
        return x

    massive_first_token.divergence(tap=keep_steps)
    assert float((steps[0][:, 0] / steps[0][:, 1:].amax(dim=1)).min()) > 20

    price = activation_price(statistics.rounding["ffn.down"])
    truth = massive_first_token.divergence(tap=rounding_of("ffn.down", model.online["ffn.down"]))
    assert 1 / 3 < price / truth < 3
    down = model.block_weights(LAYER, online=False)["ffn.down"]
    gain = float((down.square().sum(dim=1) * statistics.sensitivity["ffn.down"]).sum())
    product_of_means = gain * float(steps[0].square().mean()) / 24
    assert product_of_means > 30 * truth


def test_bands_share_out_the_rows() -> None:
    assert band_prices(torch.tensor([1.0, 2.0, 4.0, 8.0]), [(0, 1), (1, 3)]) == [1.0, 14.0]
