"""The NumPy decoder of examples/ computes what transformers does, for every family that is read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.model.checkpoints import MODELS, random_model, save

from examples.decoder import NumpyDecoder
from rockledge.model.checkpoint import open_checkpoint


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    model = random_model(name)
    tokens = np.random.default_rng(1).integers(0, 80, 40).tolist()
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    ours = NumpyDecoder(open_checkpoint(save(model, tmp_path / name))).logits(tokens)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
