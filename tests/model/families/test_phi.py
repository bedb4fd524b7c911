"""Phi-3 and Phi-4-mini against transformers: fused tensors, turns of a part of a head, LongRoPE."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.family_oracle import TOKENS, compare, gguf_twin, random_twin, read_back

from rockledge.errors import CheckpointError
from rockledge.model.hf_config import config_from_hf

# Heads of 16, of which 12 channels turn: 6 pairs.
LONG: dict[str, Any] = {
    "partial_rotary_factor": 0.75, "max_position_embeddings": 128, "original_max_position_embeddings": 32,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        "long_factor": [1.0, 1.5, 2.0, 4.0, 6.0, 8.0], "partial_rotary_factor": 0.75,
    },
}  # fmt: skip


def test_phi3(tmp_path: Path) -> None:
    config = read_back(random_twin("Phi3", sliding_window=16), tmp_path).config
    assert (config.windows, config.rotary_channels) == ((16, 16), 0)


@pytest.mark.parametrize("length", [32, 33, 48])
def test_longrope_before_and_beyond_the_original_context(length: int, tmp_path: Path) -> None:
    model = random_twin("Phi3", tie_word_embeddings=True, **LONG)
    config = read_back(model, tmp_path, TOKENS[:, :length]).config
    assert (config.rotary_channels, config.rope_original, config.context) == (12, 32, 128)
    assert config.rope_factor == pytest.approx((1 + np.log(4) / np.log(32)) ** 0.5)


@pytest.mark.parametrize("length", [32, 48])
def test_phi3_in_gguf(length: int, tmp_path: Path) -> None:
    model = random_twin("Phi3", **LONG)
    rope = LONG["rope_parameters"]
    extra = {
        "rope_factors_short.weight": np.asarray(rope["short_factor"]),
        "rope_factors_long.weight": np.asarray(rope["long_factor"]),
    }
    metadata = {
        "rope.dimension_count": 12, "rope.scaling.original_context_length": 32,
        "rope.scaling.attn_factor": float((1 + np.log(4) / np.log(32)) ** 0.5),
    }  # fmt: skip
    path = gguf_twin(tmp_path / "a.gguf", model, "phi3", metadata, extra=extra)
    compare(path, model, TOKENS[:, :length])


def test_the_parts_of_a_fused_tensor_are_its_rows(tmp_path: Path) -> None:
    model = random_twin("Phi3")
    checkpoint = read_back(model, tmp_path)
    fused = model.model.layers[1].self_attn.qkv_proj.weight.detach()
    parts = [torch.from_numpy(checkpoint.tensor(f"layers.1.attn.{part}")) for part in "qkv"]
    assert torch.equal(torch.cat(parts), fused)
    assert [part.shape for part in parts] == [checkpoint.shape(f"layers.1.attn.{part}") for part in "qkv"]


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_older_names_of_longrope(kind: str) -> None:
    scaling = {"type": kind, **{k: LONG["rope_parameters"][k] for k in ("short_factor", "long_factor")}}
    stored = {
        **random_twin("Phi3").config.to_dict(), "rope_parameters": None, "rope_scaling": scaling,
        "partial_rotary_factor": 0.75, "max_position_embeddings": 128, "original_max_position_embeddings": 32,
    }  # fmt: skip
    assert config_from_hf(stored).rope_long_divisors == (1.0, 1.5, 2.0, 4.0, 6.0, 8.0)


def test_factors_for_another_number_of_pairs_are_refused() -> None:
    stored = {**random_twin("Phi3", **LONG).config.to_dict(), "partial_rotary_factor": 1.0}
    stored["rope_parameters"] = {**stored["rope_parameters"], "partial_rotary_factor": 1.0}
    with pytest.raises(CheckpointError, match="short_factor is not a list of 8 positive numbers"):
        config_from_hf(stored)
