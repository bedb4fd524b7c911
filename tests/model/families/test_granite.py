"""Granite 3 and 4 and MiniCPM against transformers: multipliers, a shared MLP, layers that all attend."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.model.checkpoints import SIZES, save
from tests.model.family_oracle import compare, gguf_twin, random_twin, read_back

from rockledge.errors import CheckpointError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.hf_config import config_from_hf

GRANITE: dict[str, Any] = {
    "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.3,
    "logits_scaling": 2.0,
}  # fmt: skip
HYBRID: dict[str, Any] = {
    **GRANITE, "num_local_experts": 0, "shared_intermediate_size": 48, "mamba_n_heads": 8,
    "layer_types": ["full_attention"] * 2,
}  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
def test_granite3(bias: bool, tmp_path: Path) -> None:
    model = random_twin("Granite", attention_bias=bias, mlp_bias=bias, **GRANITE)
    config = read_back(model, tmp_path).config
    assert (config.embedding_scale, config.logit_scale, config.mlp_bias) == (3.0, 0.5, bias)


@pytest.mark.parametrize("position", ["rope", None])
def test_granite4_where_every_layer_attends(position: str | None, tmp_path: Path) -> None:
    model = random_twin("GraniteMoeHybrid", position_embedding_type=position, **HYBRID)
    config = read_back(model, tmp_path).config
    assert (config.ffn, config.unturned) == (48, () if position else (0, 1))


def test_granite_in_gguf(tmp_path: Path) -> None:
    model = random_twin("Granite", **GRANITE)
    metadata = {
        "rope.freq_base": 10000.0, "embedding_scale": 3.0, "residual_scale": 0.4, "attention.scale": 0.3,
        "logit_scale": 2.0,
    }  # fmt: skip
    path = gguf_twin(tmp_path / "a.gguf", model, "granite", metadata, interleaved=True)
    assert compare(path, model).config.unturned == ()
    # llama.cpp's converter describes the state space that dense models of Granite 4 do not have.
    dense = {
        "expert_count": 0, "expert_used_count": 0, "expert_shared_feed_forward_length": 96,
        "ssm.conv_kernel": 4, "ssm.state_size": 256, "ssm.group_count": 1, "ssm.inner_size": 5120,
        "ssm.time_step_rank": 80, "rope.scaling.finetuned": True,
    }  # fmt: skip
    path = gguf_twin(tmp_path / "c.gguf", model, "granite", {**metadata, **dense}, interleaved=True)
    compare(path, model)
    switched = {**metadata, "rope.scaling.finetuned": False}
    path = gguf_twin(tmp_path / "b.gguf", model, "granite", switched, interleaved=True)
    assert open_checkpoint(path).config.unturned == (0, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer_types": ["attention", "mamba"]}, "needs a recurrent body: Mamba 2"),
        ({"layer_types": None}, "needs a recurrent body: Mamba 2"),
        ({"layer_types": ["attention"]}, "layer_types in config.json is not a list of 2 names"),
        ({"num_local_experts": 4}, "num_local_experts in config.json is 4, which needs experts"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type in config.json is 'alibi'"),
        ({"attention_multiplier": 0}, "attention_multiplier in config.json is '0', expected a positive"),
    ],
)
def test_what_granite4_cannot_have_is_refused(changes: dict[str, Any], said: str) -> None:
    stored = {**random_twin("GraniteMoeHybrid", **HYBRID).config.to_dict(), **changes}
    with pytest.raises(CheckpointError, match=said):
        config_from_hf(stored)


def test_published_names_of_layers_are_read() -> None:
    stored = random_twin("GraniteMoeHybrid", **HYBRID).config.to_dict()
    assert config_from_hf({**stored, "layer_types": ["attention"] * 2}) == config_from_hf(stored)


# transformers has no MiniCPM of its own: Granite with the same multipliers computes it.
MINICPM = {"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32}
TWIN: dict[str, Any] = {
    "embedding_multiplier": 12.0, "residual_multiplier": 1.4 / 2**0.5, "attention_multiplier": 0.25,
    "logits_scaling": 64 / 32,
}  # fmt: skip


def test_minicpm(tmp_path: Path) -> None:
    model = random_twin("Granite", tie_word_embeddings=True, **TWIN)
    path = save(model, tmp_path / "hf")
    stored = {**SIZES, "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "rms_norm_eps": 1e-6}
    (path / "config.json").write_text(json.dumps({**stored, **MINICPM}))
    assert compare(path, model).config.tied
    with pytest.raises(CheckpointError, match=r"dim_model_base in config.json is 'None', expected a number"):
        config_from_hf({**stored, "scale_depth": 1.4})


def test_minicpm_in_gguf(tmp_path: Path) -> None:
    model = random_twin("Granite", **TWIN)
    metadata = {
        "rope.freq_base": 10000.0, "embedding_scale": 12.0, "residual_scale": 1.4 / 2**0.5, "logit_scale": 2.0
    }  # fmt: skip
    compare(gguf_twin(tmp_path / "a.gguf", model, "minicpm", metadata, interleaved=True), model)
    # Older files say nothing: 12, 1.4 and 256 were the numbers of the first MiniCPM.
    first = random_twin("Granite", **{**TWIN, "logits_scaling": 64 / 256})
    path = gguf_twin(tmp_path / "b.gguf", first, "minicpm", {"rope.freq_base": 1e4}, interleaved=True)
    compare(path, first)
