"""The numbers that define a model: what cannot describe one is refused."""

import dataclasses
from typing import Any

import pytest

from rockledge.errors import CheckpointError
from rockledge.model.config import ModelConfig, check_config

TINY = ModelConfig(
    family="llama", hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=80, norm_eps=1e-6,
    rope_theta=1e4, rope_divisors=(1.0,) * 8, tied=True, context=256, qkv_bias=False, qk_norm=False, bos=1,
    eos=(2,),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"norm_eps": 2.0}, "norm_eps"),
        ({"layers": 0}, "layers is 0"),
        ({"head_dim": 15}, "even"),
        ({"kv_heads": 3}, "share"),
        ({"rope_divisors": (1.0,) * 7}, "8 positive"),
        ({"eos": (2, 80)}, "special token 80 is outside the vocabulary of 80 tokens"),
        ({"bos": -1}, "special token -1 is outside"),
    ],
)
def test_what_cannot_describe_a_model_is_refused(change: dict[str, Any], said: str) -> None:
    assert check_config(TINY) is TINY
    with pytest.raises(CheckpointError, match=said):
        check_config(dataclasses.replace(TINY, **change))
