"""Models without a language head from the checkpoint to embeddings, against transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.quantization.embedder import TEXTS, embeddings, write_embedder

from rockledge.artifact import open_artifact
from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import forward
from rockledge.quantization.float_model.reference_logits import ReferenceLogits
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.reporting.report import Report
from rockledge.runtime.model import Model

TOKENS = 2048


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("embedder") / "model"
    return path, write_embedder(path)


@pytest.fixture(scope="module")
def eight_bits(source: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("artifact") / "out"
    return out, quantize(source[0], out, bits=9.5, tokens=TOKENS, check_prices=True)


def test_the_float_reference_gives_the_states(source: tuple[Path, Any]) -> None:
    path, model = source
    checkpoint, tokens = open_checkpoint(path), torch.randint(0, 600, (2, 40))
    with torch.no_grad():
        expected = model(tokens).last_hidden_state
    torch.testing.assert_close(forward(checkpoint, tokens), expected, rtol=1e-4, atol=1e-4)
    window = tokens[1].tolist()
    np.testing.assert_allclose(
        ReferenceLogits(checkpoint, [window])(window), expected[1], rtol=1e-4, atol=1e-4
    )


def test_embeddings_of_texts_are_those_of_transformers(
    source: tuple[Path, Any], eight_bits: tuple[Path, Report]
) -> None:
    expected = embeddings(*source, TEXTS)
    with Model.load(eight_bits[0], threads=1) as model:
        found = model.embed(TEXTS)
    assert found.shape == expected.shape == (len(TEXTS), 64)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert (found * expected).sum(axis=1).min() >= 0.999


def test_the_report_is_about_embeddings(eight_bits: tuple[Path, Report]) -> None:
    path, report = eight_bits
    numbers, artifact = report.numbers, open_artifact(path)
    assert artifact.config.headless
    cost = numbers["divergence"]
    assert 0 < cost["cosine_distance_mean"] < cost["cosine_distance_max"] < 0.01
    assert not [key for key in [*numbers, *cost, *numbers["budgets"][0]] if key.startswith("kl_")]
    (row,) = [row for row in numbers["budgets"] if row["bits_asked"] == 8.0]
    assert row["cosine_distance_predicted"] > cost["cosine_distance_mean"]
    assert any("loss is 1 - cosine" in note for note in numbers["notes"])
    assert "1 - cosine to the float model's embeddings" in report.text
    assert "predicted 1 - cosine" in report.text


def test_prices_rank_bands_by_what_they_do_to_embeddings(eight_bits: tuple[Path, Report]) -> None:
    assert eight_bits[1].numbers["price_check"]["rank_correlation"] > 0.8


def test_fewer_bits_cost_more(
    source: tuple[Path, Any], eight_bits: tuple[Path, Report], tmp_path: Path
) -> None:
    narrow = quantize(source[0], tmp_path / "out", bits=6.0, tokens=TOKENS).numbers["divergence"]
    wide = eight_bits[1].numbers["divergence"]
    assert 3 * wide["cosine_distance_mean"] < narrow["cosine_distance_mean"] < 0.1
