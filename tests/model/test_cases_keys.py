"""Checkpoints that went wrong once: keys that change the arithmetic, and the family that they name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.model.checkpoints import random_model, write_gguf
from tests.model.opened_cases import CASES, TOKENS, agree, changed, refused

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import forward


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.dimension_sections", [4, 2, 2, 0]),
        ("rope.scaling.beta_fast", 32.0),
        ("rope.freq_base_swa", 1e4),
        ("logit_scale", 8.0),
        ("residual_scale", 0.2),
        ("embedding_scale", 12.0),
        ("attention.scale", 0.01),
        ("attention.causal", False),
        ("attention.clamp_kqv", 8.0),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("expert_used_count", 2),
        ("use_parallel_residual", True),
        ("tensor_data_layout", "transposed"),
        ("a_key_of_tomorrow", 3),
    ],
)
def test_metadata_that_are_not_understood_are_refused_by_name(
    key: str, value: object, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={f"llama.{key}": value})
    refused(path, rf"a\.gguf has llama\.{key}: .*not supported; expected")


def test_metadata_that_do_not_change_the_results_are_taken(tmp_path: Path) -> None:
    metadata = {
        "llama.rope.scaling.finetuned": True, "llama.rope.scaling.original_context_length": 64,
        "llama.rope.scaling.attn_factor": 1.0, "llama.attention.scale": 0.25, "llama.logit_scale": 0.0,
        "llama.expert_count": 0, "llama.expert_used_count": 0, "llama.attention.causal": True,
        "llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": 1,
        "llama.tensor_data_layout": "Meta AI original pth", "llama.vocab_size": 80, "general.name": "x",
        "quantize.imatrix.entries_count": 3,
    }  # fmt: skip
    model = random_model("llama2")
    checkpoint = open_checkpoint(write_gguf(tmp_path / "a.gguf", model, metadata=metadata))
    assert checkpoint.notes == ()
    assert checkpoint.config.context == 256
    with torch.no_grad():
        expected = model(TOKENS % 80).logits
    torch.testing.assert_close(forward(checkpoint, TOKENS % 80), expected, rtol=1e-4, atol=1e-4)


def test_metadata_of_other_tools_are_told(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata={"mradermacher.run": "7"})
    assert open_checkpoint(path).notes == (
        "a.gguf has metadata that are not known and not used: mradermacher.run.",
    )


@pytest.mark.parametrize(
    ("pattern", "windows"),
    [(None, (64, 64)), (1, ()), (False, ()), (2, (64, 0)), ([False, True], (0, 64)), ([False, False], ())],
)
def test_a_window_in_a_gguf_file_is_read(pattern: object, windows: tuple[int, ...], tmp_path: Path) -> None:
    metadata: dict[str, Any] = {"llama.attention.sliding_window": 64}
    if pattern is not None:
        metadata["llama.attention.sliding_window_pattern"] = pattern
    config = open_checkpoint(
        write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=metadata)
    ).config
    assert (config.windows, config.context) == (windows, 256)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"attention.sliding_window_pattern": 4}, "pattern is 4, expected a window"),
        ({"attention.sliding_window": 8, "attention.sliding_window_pattern": [True]}, "expected 2 flags"),
        ({"attention.sliding_window": 8, "attention.sliding_window_pattern": "all"}, "pattern is all"),
    ],
)
def test_a_pattern_of_windows_that_makes_no_sense_is_refused(
    metadata: dict[str, Any], said: str, tmp_path: Path
) -> None:
    named = {f"llama.{key}": value for key, value in metadata.items()}
    refused(write_gguf(tmp_path / "a.gguf", random_model("llama2"), metadata=named), said)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lm_head_bias", True), ("logits_soft_cap", 30.0),
        ("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0), ("query_pre_attn_scalar", 256),
        ("attention_multiplier", 0.5), ("embedding_multiplier", 12.0), ("residual_multiplier", 0.2),
        ("logits_scaling", 8.0), ("logit_scale", 0.06), ("scale_emb", 12), ("scale_depth", 1.4),
        ("partial_rotary_factor", 0.5), ("rotary_pct", 0.25), ("rope_interleaved", True), ("use_mrope", True),
        ("no_rope_layers", [1, 0]), ("no_rope_layer_interval", 4), ("attention_chunk_size", 8192),
        ("layer_types", ["sliding_attention"]), ("use_qk_norm", True), ("qk_layernorm", True),
        ("clip_qkv", 8.0), ("num_local_experts", 8), ("num_experts", 4), ("norm_type", "layernorm"),
        ("hidden_act", "gelu"), ("hidden_activation", "gelu_pytorch_tanh"), ("alibi", True),
        ("is_causal", False), ("num_kv_shared_layers", 2), ("pruned_heads", {"0": [1]}),
        ("some_new_scale", 3.0), ("qkv_norm_kind", "l2"), ("my_softcap", 20), ("layer_norm_eps", 0.5),
    ],
)  # fmt: skip
def test_keys_that_change_the_arithmetic_are_refused_by_name(key: str, value: object, tmp_path: Path) -> None:
    refused(changed("f16_both", tmp_path, {key: value}), key)


def test_keys_that_do_not_change_the_arithmetic_are_taken(tmp_path: Path) -> None:
    harmless = {
        "attention_dropout": 0.1, "pretraining_tp": 4, "use_cache": False, "mlp_bias": False,
        "rope_interleaved": False,
        "layer_norm_eps": json.loads((CASES / "f16_both/config.json").read_text())["rms_norm_eps"],
        "use_mrope": False, "is_llama_config": True, "unsloth_version": "2025.1", "torch_dtype": "bfloat16",
        "transformers.js_config": {"dtype": "q4"}, "partial_rotary_factor": 1.0, "logits_scaling": 1.0,
        "attn_logit_softcapping": None, "no_rope_layers": [1], "sep_token_id": 5, "id2label": {"0": "x"},
    }  # fmt: skip
    path = changed("f16_both", tmp_path, harmless, without=("rope_scaling",))
    assert agree(path).notes == ()


def test_keys_that_nobody_knows_are_told(tmp_path: Path) -> None:
    path = changed("f16_both", tmp_path, {"author": "x", "auto_map": {"A": "b.C"}}, without=("rope_scaling",))
    notes = " ".join(open_checkpoint(path).notes)
    assert "keys that are not known and not used: author" in notes
    assert "code of its own (auto_map), which is not run" in notes


@pytest.mark.parametrize(
    ("config", "without"),
    [({}, ("architectures",)), ({"architectures": ["Qwen2ForCausalLM"]}, ()), ({"architectures": None}, ())],
)
def test_the_model_type_says_the_family(
    config: dict[str, Any], without: tuple[str, ...], tmp_path: Path
) -> None:
    assert agree(changed("f4_head", tmp_path, config, without=without)).config.family == "llama"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "'LlamaForSequenceClassification' is not supp",
        ),
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox', which is not supported"),
    ],
)
def test_models_of_another_kind_are_refused_by_name(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(changed("f4_head", tmp_path, config), said)


def test_biases_of_llama_are_read() -> None:
    config = agree(CASES / "f9_bias").config
    assert (config.qkv_bias, config.o_bias) == (True, True)
