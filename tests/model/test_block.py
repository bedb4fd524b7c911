"""The decoder as a tree, and what is read from it."""

from dataclasses import replace

import pytest

from rockledge.model.block import decoder, windows
from rockledge.model.config import ModelConfig

PLAIN = ModelConfig(
    family="llama",
    hidden=64,
    layers=5,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=96,
    vocab=100,
    norm_eps=1e-5,
    rope_theta=1e4,
    rope_divisors=(1.0,) * 8,
    tied=False,
    context=256,
    qkv_bias=False,
    qk_norm=False,
    bos=None,
    eos=(2,),
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ((0, (0, 1, 2, 3, 4)),)),
        ((48, 48, 0, 48, 0), ((0, (2, 4)), (48, (0, 1, 3)))),
        ((64,) * 5, ((64, (0, 1, 2, 3, 4)),)),
        ((64, 32, 0, 32, 64), ((0, (2,)), (32, (1, 3)), (64, (0, 4)))),
    ],
)
def test_layers_of_one_window_stand_together_and_full_attention_first(given, expected):
    assert windows(decoder(replace(PLAIN, windows=given))) == expected
