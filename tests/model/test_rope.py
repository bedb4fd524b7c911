"""Rotary frequencies against transformers' tables."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rockledge.errors import CheckpointError
from rockledge.model.hf_config import config_from_hf
from rockledge.model.rope import inverse_frequencies, rope_divisors, rope_of

SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 8192},
    {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 512},
]  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any], theta: float) -> None:
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, rope_parameters={**scaling, "rope_theta": theta}
    )
    ours = config_from_hf({**config.to_dict(), "architectures": ["LlamaForCausalLM"]})
    with torch.no_grad():
        theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
    rope = rope_of(ours, 0)
    assert rope is not None
    found = inverse_frequencies(rope)
    assert found.shape == (64,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs.numpy(), rtol=2e-6)


def test_the_older_spelling_of_the_type_is_read() -> None:
    assert rope_divisors({"type": "linear", "factor": 2}, 8, 1e4) == (2.0,) * 4


def test_reversed_bounds_of_llama3_are_refused() -> None:
    scaling = {**SCALINGS[2], "low_freq_factor": 4.0, "high_freq_factor": 1.0}
    with pytest.raises(CheckpointError, match="high_freq_factor is not above"):
        rope_divisors(scaling, 8, 1e4)
