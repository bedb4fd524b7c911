"""Rotary frequencies against transformers' tables."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rockledge.errors import CheckpointError
from rockledge.model.gguf_rope import gguf_rope
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_config import config_from_hf
from rockledge.model.rope import inverse_frequencies, rope_divisors, rope_of

YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 8192},
    {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 512},
    YARN,
    {**YARN, "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0},
    {**YARN, "beta_fast": 4.0, "beta_slow": 3.9},
    {**YARN, "truncate": False, "attention_factor": 1.2},
    {**YARN, "factor": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any], theta: float) -> None:
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, rope_parameters={**scaling, "rope_theta": theta}
    )
    ours = config_from_hf({**config.to_dict(), "architectures": ["LlamaForCausalLM"]})
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    rope = rope_of(ours, 0)
    assert rope is not None
    found = inverse_frequencies(rope)
    assert found.shape == (64,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, theirs.inv_freq.numpy(), rtol=2e-6)
    assert rope.factor == pytest.approx(theirs.attention_scaling)


def at_length(config: Any, length: int) -> tuple[np.ndarray, float]:
    """transformers' frequencies, and its factor on cosines and sines, for a sequence of that length."""
    kind = config.rope_parameters["rope_type"]
    make = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind]
    frequencies, factor = make(config, torch.device("cpu"), seq_len=length)
    return frequencies.numpy(), factor


@pytest.mark.parametrize("length", [1, 511, 512, 513, 700, 2048])
@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
def test_dynamic_scaling_is_that_of_transformers_at_every_length(length: int, factor: float) -> None:
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, max_position_embeddings=512,
        rope_parameters={"rope_type": "dynamic", "factor": factor, "rope_theta": 1e4},
    )  # fmt: skip
    ours = config_from_hf({**config.to_dict(), "architectures": ["LlamaForCausalLM"]})
    rope = rope_of(ours, 0)
    assert rope is not None
    expected, scaling = at_length(config, length)
    np.testing.assert_allclose(inverse_frequencies(rope, length), expected, rtol=3e-6)
    assert (rope.factor, ours.context) == (scaling, int(512 * factor))


@pytest.mark.parametrize("length", [1, 512, 513, 2048])
@pytest.mark.parametrize("own", [{}, {"factor": 3.0}, {"attention_factor": 1.7}])
def test_longrope_is_that_of_transformers_at_every_length(length: int, own: dict[str, float]) -> None:
    config = transformers.LlamaConfig(
        hidden_size=32, num_attention_heads=2, max_position_embeddings=2048,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 512,
            "short_factor": [1.0 + i / 10 for i in range(8)], "long_factor": [1.0 + i for i in range(8)],
            **own,
        },
    )  # fmt: skip
    rope = rope_of(config_from_hf({**config.to_dict(), "architectures": ["LlamaForCausalLM"]}), 0)
    assert rope is not None
    expected, scaling = at_length(config, length)
    np.testing.assert_allclose(inverse_frequencies(rope, length), expected, rtol=2e-6)
    assert rope.factor == pytest.approx(scaling)


def test_yarn_added_by_hand_stretches_the_context() -> None:
    rope = {**YARN, "rope_theta": 1e4}
    config = transformers.LlamaConfig(max_position_embeddings=512, rope_parameters=rope)
    stored = {**config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    assert config_from_hf(stored).context == 2048
    assert config_from_hf({**stored, "max_position_embeddings": 4096}).context == 4096


# The angles of llama.cpp's rope_yarn (ggml): theta interpolated by 1 / factor, mixed by its ramp.
@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_yarn_of_gguf_is_that_of_llama_cpp(theta: float) -> None:
    factor, original, turned, fast, slow = 8.0, 4096, 64, 32.0, 1.0
    metadata = {
        "rope.freq_base": theta, "rope.scaling.type": "yarn", "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": original, "context_length": 32768,
    }  # fmt: skip
    values = GgufValues("a.gguf", "qwen3", {f"qwen3.{k}": v for k, v in metadata.items()}, ())
    fields = gguf_rope(values, turned, lambda name, count: None)

    def dimension(rotations: float) -> float:
        return float(turned * np.log(original / (rotations * 2 * np.pi)) / (2 * np.log(theta)))

    low = max(0.0, np.floor(dimension(fast)))
    high = min(turned - 1.0, np.ceil(dimension(slow)))
    pair = np.arange(turned // 2)
    ramp = 1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)
    expected = theta ** (-2 * pair / turned) * ((1 - ramp) / factor + ramp)
    found = theta ** (-2 * pair / turned) / np.asarray(fields["rope_divisors"])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert fields["rope_factor"] == pytest.approx(1 + 0.1 * np.log(factor))


def test_the_older_spelling_of_the_type_is_read() -> None:
    assert rope_divisors({"type": "linear", "factor": 2}, 8, 1e4) == (2.0,) * 4


def test_reversed_bounds_of_llama3_are_refused() -> None:
    scaling = {**SCALINGS[2], "low_freq_factor": 4.0, "high_freq_factor": 1.0}
    with pytest.raises(CheckpointError, match="high_freq_factor is not above"):
        rope_divisors(scaling, 8, 1e4)


@pytest.mark.parametrize(("stated", "taken"), [(1.0, True), (1.1386294, True), (0.9, False)])
def test_the_magnitude_of_yarn_in_gguf_counts_once(stated: float, taken: bool) -> None:
    metadata = {
        "context_length": 64, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 16, "rope.scaling.yarn_attn_factor": stated,
    }  # fmt: skip
    values = GgufValues("a.gguf", "qwen3", {f"qwen3.{key}": value for key, value in metadata.items()}, ())
    if taken:
        found = gguf_rope(values, 16, lambda name, count: None)
        assert found["rope_factor"] == pytest.approx(0.1 * np.log(4) + 1)
    else:
        with pytest.raises(CheckpointError, match=r"yarn_attn_factor is 0.9, expected 1.1386"):
            gguf_rope(values, 16, lambda name, count: None)


def test_a_linear_factor_counts_beside_short_and_long_ones_in_gguf() -> None:
    # As in ggml, which divides by a factor of each pair and then by the one for all.
    metadata = {"llama.context_length": 64, "llama.rope.scaling.factor": 4.0}
    found = gguf_rope(
        GgufValues("a.gguf", "llama", metadata, ()),
        4,
        lambda name, count: {
            "rope_factors_short.weight": np.float32([1, 2]), "rope_factors_long.weight": np.float32([3, 5]),
        }.get(name),
    )  # fmt: skip
    assert (found["rope_divisors"], found["rope_long_divisors"]) == ((4.0, 8.0), (12.0, 20.0))
