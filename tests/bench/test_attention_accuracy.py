"""Codes of attention's weights beside float weights and int8 heads: close, not equal, and in this order."""

from pathlib import Path

import pytest
import torch
from tests.model.checkpoints import random_model, save

from bench import attention_accuracy
from bench.attention_accuracy import coded, int8_heads
from rockledge.model.block import decoder
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.quantization.float_model.forward import attention


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(save(random_model("llama2"), Path(tmp_path_factory.mktemp("model"))))


def test_codes_are_much_closer_than_int8_heads(checkpoint: Checkpoint) -> None:
    body = decoder(checkpoint.config).layers[0].attends
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, 600, body.head_dim)  # two splits
    exact = attention(body, q, k, v)
    codes, heads = ((way(body, q, k, v) - exact).abs().max() for way in (coded, int8_heads))
    assert 1e-6 < codes < 1e-3
    assert heads > 4 * codes


def test_costs_are_divergences_from_the_float_model(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_accuracy, "FIRST", 4)
    tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    found = attention_accuracy.costs(
        lambda attend: attention_accuracy.log_probabilities(checkpoint, tokens, attend)
    )
    assert 0 <= found["weights as codes"]["mean"] < 1e-6 < found["int8 heads"]["mean"]
    assert found["int8 heads"]["mean"] <= found["int8 heads"]["largest"]
