"""A learned rotation turns the stream without changing the model, and its peaks are lower."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.quantize.test_rotate import TOKENS, rotated_logits

from rockledge.errors import UsageError
from rockledge.formats.hadamard import random_rotation
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantize.learn_rotation import flattest, learned
from rockledge.quantize.pipeline import quantize
from rockledge.quantize.recipe import read_recipe
from rockledge.quantize.reference import forward
from rockledge.quantize.rotate import rotated
from rockledge.quantize.transform import rotate
from rockledge.synth import synth_checkpoint

ODD, BLOCK = 3, 32


def peaks(x: torch.Tensor) -> float:
    return float(x.abs().amax(dim=1).square().mean())


def test_peaks_of_other_tokens_are_lower() -> None:
    """One loud channel lies in the first of three blocks. Mixed evenly, its square is a third."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(600, ODD * BLOCK, generator=generator)
    plain[:, 5] *= 100.0
    start = replace(random_rotation(ODD * BLOCK, 3), mix=np.eye(ODD, dtype=np.float32))
    found = flattest(start, [rotate(plain[:300], start)])
    torch.testing.assert_close(torch.from_numpy(found.mix @ found.mix.T), torch.eye(ODD), atol=1e-6, rtol=0)
    assert np.array_equal(found.signs, start.signs)
    assert peaks(rotate(plain[300:], found)) < 0.5 * peaks(rotate(plain[300:], start))


def test_the_model_stays_what_it_is(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(synth_checkpoint("toy", tmp_path))
    start = rotated(checkpoint)
    tokens = np.random.default_rng(0).integers(0, 300, (2, 64))
    found, again = learned(start, tokens), learned(start, tokens)
    assert start.rotation is not None
    assert found.rotation is not None
    assert again.rotation is not None
    assert not np.array_equal(found.rotation.mix, start.rotation.mix)
    assert np.array_equal(found.rotation.mix, again.rotation.mix)
    expected = forward(checkpoint, TOKENS)
    assert float((rotated_logits(found) - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_a_recipe_asks_for_it(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("version: 1\nsteps: {rotate: learned}\n")
    report = quantize(source, tmp_path / "out", bits=8.0, tokens=2048, recipe=recipe)
    assert report.numbers["divergence"]["kl_mean_nats"] < 2e-3
    kept = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert kept.steps.rotate == "learned"
    quantize(source, tmp_path / "again", recipe=tmp_path / "out" / "recipe.yaml")
    files = ("model.safetensors", "recipe.yaml")
    assert all((tmp_path / "again" / f).read_bytes() == (tmp_path / "out" / f).read_bytes() for f in files)


def test_a_power_of_two_has_nothing_to_learn(tmp_path: Path) -> None:
    model = rotated(open_checkpoint(synth_checkpoint("toy", tmp_path)))
    plain = type(model)(model.checkpoint, random_rotation(64, 0), model.device, model.steps)
    with pytest.raises(UsageError, match="no rotation to learn"):
        learned(plain, np.zeros((1, 8), np.int64))
