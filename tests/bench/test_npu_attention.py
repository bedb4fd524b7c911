"""Other codes of attention's weights are as coarse as they should be, the CPU's those of its own bench."""

from pathlib import Path

import pytest
import torch
from tests.model.checkpoints import random_model, save

from bench import attention_accuracy, npu_attention
from rockledge.formats.attention_spec import MOST_CODE, SPLIT
from rockledge.model.block import Attention, decoder
from rockledge.model.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Attention:
    checkpoint = open_checkpoint(save(random_model("llama2"), Path(tmp_path_factory.mktemp("model"))))
    return decoder(checkpoint.config).layers[0].attends


def test_codes_of_the_cpu_are_those_of_its_own_bench(body: Attention) -> None:
    torch.manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, 600, body.head_dim)  # two splits
    found = npu_attention.coded(body, q, k, v, MOST_CODE, SPLIT)
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=body.scale)
    assert (found - attention_accuracy.coded(body, q, k, v)).abs().max() < 1e-4
    assert (found - exact).abs().max() < 1e-3


def test_fewer_bits_and_wider_spans_lose_more(body: Attention) -> None:
    torch.manual_seed(2)
    q, k, v = torch.randn(3, 1, 2, 1100, body.head_dim)
    q *= 4  # far from even weights
    cpu = npu_attention.way(*npu_attention.CPU)(body, q, k, v)
    errors = {
        name: float((npu_attention.way(*codes)(body, q, k, v) - cpu).square().mean().sqrt())
        for name, codes in npu_attention.CODES.items()
    }
    split, row, two = errors.values()
    assert 0 < two < split / 10
    assert split < row
