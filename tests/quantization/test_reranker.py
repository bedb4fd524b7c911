"""A reranker is a causal model that answers yes or no: its score is right."""

from pathlib import Path

import numpy as np
import torch
from tests.model.checkpoints import random_model
from tests.quantization.embedder import write_files

from rockledge.quantization.pipeline import quantize
from rockledge.runtime.engine import Engine


def test_the_probability_of_yes_is_that_of_transformers(tmp_path: Path) -> None:
    model = random_model("qwen3-tied", vocab_size=600)
    model.save_pretrained(tmp_path / "model")
    write_files(tmp_path / "model", ("Transformer",))
    quantize(model=tmp_path / "model", out=tmp_path / "out", bits=9.5, tokens=2048)
    prompts = np.random.default_rng(5).integers(3, 600, (6, 20)).tolist()
    yes, no = 300, 301
    with torch.no_grad():
        logits = model(torch.tensor(prompts)).logits[:, -1]
    expected = torch.sigmoid(logits[:, yes] - logits[:, no]).numpy()
    with Engine.load(tmp_path / "out", threads=1) as engine:
        after = np.array([engine.logits(prompt)[-1] for prompt in prompts])
    found = 1 / (1 + np.exp(after[:, no] - after[:, yes]))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=0.05)
