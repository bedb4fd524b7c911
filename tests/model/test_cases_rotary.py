"""Checkpoints that went wrong once: rotary settings with several spellings, and scalings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.checkpoints import random_model, write_gguf
from tests.model.opened_cases import CASES, TOKENS, agree, changed, refused

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import forward

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def test_a_linear_factor_needs_no_type() -> None:
    untyped, typed = (open_checkpoint(CASES / f"f3_{name}.gguf") for name in ("notype", "type"))
    assert untyped.config == typed.config
    torch.testing.assert_close(forward(untyped, TOKENS), forward(typed, TOKENS), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({"llama.rope.scaling.factor": 4.0}, 4.0),
        ({"llama.rope.scale_linear": 4.0}, 4.0),
        ({"llama.rope.scale_linear": 2.0, "llama.rope.scaling.factor": 4.0}, 4.0),
        ({"llama.rope.scale_linear": 2.0, "llama.rope.scaling.type": "linear"}, 2.0),
        ({"llama.rope.scaling.factor": 0.0}, 1.0),
        ({"llama.rope.scaling.factor": 4.0, "llama.rope.scaling.type": "none"}, 1.0),
    ],
)
def test_the_factor_is_found_where_llama_cpp_finds_it(
    metadata: dict[str, Any], factor: float, tmp_path: Path
) -> None:
    model = random_model("llama2")
    checkpoint = open_checkpoint(write_gguf(tmp_path / "a.gguf", model, metadata=metadata))
    twin = random_model("llama2", rope_parameters={**LINEAR, "factor": factor, "rope_theta": 10000.0})
    twin.load_state_dict(model.state_dict())
    tokens = TOKENS % 80
    with torch.no_grad():
        torch.testing.assert_close(forward(checkpoint, tokens), twin(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["proportional", "axial"])
@pytest.mark.parametrize("spelling", ["type", "rope_type"])
def test_scalings_are_refused_by_name(kind: str, spelling: str, tmp_path: Path) -> None:
    refused(
        changed("f16_both", tmp_path, {"rope_scaling": {spelling: kind, "factor": 2.0}}), f'"{kind}" is not'
    )


def test_rope_scaling_counts_before_rope_parameters() -> None:
    checkpoint = agree(CASES / "f16_both")
    assert set(checkpoint.config.rope_divisors) == {4.0}
    assert "both rope_scaling and rope_parameters; rope_scaling counts" in checkpoint.notes[0]


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},  # the base is replaced too
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rope_theta": 7e5},
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": None, "rope_theta": 7e5},
        {"rope_scaling": {**LINEAR, "rope_theta": 3e5}, "rope_theta": 7e5},
        {"rope_scaling": {}},
        {"rope_scaling": {"type": "linear", "rope_type": "default", "factor": 4.0}},
        {"rope_parameters": YARN},
        {"rope_scaling": YARN},
        {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 8.0, "beta_slow": 2.0}},
        {"rope_scaling": {**YARN, "attention_factor": 1.3, "truncate": False}},
        {"rope_scaling": None, "rope_parameters": {**YARN, "rope_theta": 1e4}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 64},
        {"rope_scaling": LLAMA3},
        {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}},
        {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32},
         "original_max_position_embeddings": 64},
    ],
)  # fmt: skip
def test_the_order_of_rotary_settings_is_that_of_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    agree(changed("f16_both", tmp_path, config))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rope_scaling": {}, "rope_parameters": {"full_attention": LINEAR}}, "an entry 'full_attention'"),
        ({"rope_scaling": {**LINEAR, "attention_factor": 1.3}}, "attention_factor: 1.3"),
        ({"rope_scaling": {**LINEAR, "partial_rotary_factor": 0.5}}, "partial_rotary_factor: 0.5"),
        ({"rope_scaling": [4.0]}, "rope_scaling in config.json is not an object"),
    ],
)
def test_rotary_settings_that_are_not_understood_are_refused(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(changed("f16_both", tmp_path, config), said)


def test_entries_that_a_scaling_does_not_use_are_told(tmp_path: Path) -> None:
    path = changed("f16_both", tmp_path, {"rope_scaling": {**LINEAR, "beta_fast": 32}})
    assert "rope_scaling has keys that its type does not use: beta_fast" in " ".join(agree(path).notes)
