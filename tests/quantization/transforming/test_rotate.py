"""The rotated model is the same function, for every family, tied or not, with and without biases and inner
norms."""

from pathlib import Path

import pytest
import torch
from tests.model.checkpoints import MODELS, random_model, save
from tests.quantization.forms import FORMS, form

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import block_forward, forward
from rockledge.quantization.float_model.logits import finished
from rockledge.quantization.transforming.rotate import RotatedModel, rotated

TOKENS = torch.randint(0, 80, (2, 24), generator=torch.Generator().manual_seed(1))


def rotated_logits(model: RotatedModel, online: bool = True) -> torch.Tensor:
    taps = model.taps(online=online)
    with torch.no_grad():
        x = model.stream(model.embedding()[TOKENS])
        for layer in range(model.config.layers):
            x = block_forward(model.block_weights(layer, online=online), x, model.tree, layer, taps)
        return finished(model.head_input(x) @ model.head().T, model.tree)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("online", [True, False])
def test_float_logits_do_not_change(name: str, online: bool, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(random_model(name), tmp_path))
    expected = forward(checkpoint, TOKENS)
    found = rotated_logits(rotated(checkpoint, seed=5), online)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("online", [True, False])
def test_float_logits_of_every_form_do_not_change(name: str, online: bool) -> None:
    checkpoint, _ = form(name)
    expected = forward(checkpoint, TOKENS)
    found = rotated_logits(rotated(checkpoint, seed=5), online)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_the_seed_fixes_the_rotation(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save(random_model("llama2"), tmp_path))
    first, again, other = (rotated(checkpoint, seed).embedding() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_rotation_spreads_outlier_channels(tmp_path: Path) -> None:
    model = random_model("llama2")
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 3] *= 50
    turned = rotated(open_checkpoint(save(model, tmp_path))).embedding()
    peak = float((turned.abs().amax(1) / turned.square().mean(1).sqrt()).mean())
    plain = model.model.embed_tokens.weight.detach()
    assert peak < 0.6 * float((plain.abs().amax(1) / plain.square().mean(1).sqrt()).mean())
