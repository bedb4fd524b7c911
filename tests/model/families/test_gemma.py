"""Gemma 2 and 3 against transformers: logits, both formats, the text part of a multimodal checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.model.checkpoints import SIZES, save
from tests.model.family_oracle import compare, gguf_twin, random_twin, randomised, read_back

from rockledge.errors import CheckpointError
from rockledge.model.hf_config import config_from_hf

GEMMA2: dict[str, Any] = {
    "num_hidden_layers": 3, "head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 16,
    "attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0,
}  # fmt: skip
GEMMA3: dict[str, Any] = {
    "num_hidden_layers": 4, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16,
    "sliding_window_pattern": 3,
}  # fmt: skip
SCALED = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}


def stored_as(model: Any, **changes: Any) -> dict[str, Any]:
    return {**model.config.to_dict(), "architectures": [type(model).__name__], **changes}


def test_the_window_that_gemma2_states_twice_is_one() -> None:
    stored = stored_as(random_twin("Gemma2", **GEMMA2))
    found = config_from_hf({**stored, "sliding_window_size": 16})
    assert found == config_from_hf(stored)
    with pytest.raises(CheckpointError, match=r"sliding_window_size in config.json is '8', expected 16"):
        config_from_hf({**stored, "sliding_window_size": 8})


def test_gemma2_in_both_formats(tmp_path: Path) -> None:
    model = random_twin("Gemma2", **GEMMA2)
    config = read_back(model, tmp_path).config
    assert (config.windows, config.attention_scale) == ((16, 0, 16), 24**-0.5)
    plain = random_twin("Gemma2", **{**GEMMA2, "query_pre_attn_scalar": 32})
    metadata = {
        "attention.sliding_window": 16, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0,
    }  # fmt: skip
    compare(gguf_twin(tmp_path / "a.gguf", plain, "gemma2", metadata, gain_offset=1.0), plain)


def test_the_largest_gemma2_in_gguf_has_its_own_scale(tmp_path: Path) -> None:
    model = random_twin("Gemma2", **{**GEMMA2, "num_hidden_layers": 46, "query_pre_attn_scalar": 16})
    metadata = {"attention.sliding_window": 16, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0}
    compare(gguf_twin(tmp_path / "a.gguf", model, "gemma2", metadata, gain_offset=1.0), model)


@pytest.mark.parametrize("changes", [{}, {"rope_parameters": SCALED}, {"attention_bias": True}])
def test_gemma3(changes: dict[str, Any], tmp_path: Path) -> None:
    config = read_back(random_twin("Gemma3Text", **GEMMA3, **changes), tmp_path).config
    assert config.windows == (16, 16, 0, 16)
    assert config.window_rope_theta == (2e4 if "rope_parameters" in changes else 1e4)


@pytest.mark.parametrize("pattern", [6, [True, True, False, True]])
def test_gemma3_in_gguf(pattern: object, tmp_path: Path) -> None:
    layers = 7 if pattern == 6 else 4
    own = {**GEMMA3, "num_hidden_layers": layers, "sliding_window_pattern": 6 if pattern == 6 else 3}
    model = random_twin("Gemma3Text", **own, rope_parameters=SCALED)
    metadata: dict[str, Any] = {
        "attention.sliding_window": 16, "rope.freq_base": 5e5, "rope.freq_base_swa": 2e4,
        "rope.scaling.type": "linear", "rope.scaling.factor": 8.0,
    }  # fmt: skip
    if pattern != 6:
        metadata["attention.sliding_window_pattern"] = pattern
    compare(gguf_twin(tmp_path / "a.gguf", model, "gemma3", metadata, gain_offset=1.0), model)


def test_the_older_spelling_of_gemma3_is_that_of_the_hub() -> None:
    published = {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "attn_logit_softcapping": None,
        "cache_implementation": "hybrid", "final_logit_softcapping": None, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "vocab_size": 262144,
    }  # fmt: skip
    found = config_from_hf(published)
    theirs = transformers.Gemma3TextConfig(**{k: v for k, v in published.items() if k != "architectures"})
    assert [window > 0 for window in found.windows] == [
        kind == "sliding_attention" for kind in theirs.layer_types
    ]
    full = theirs.rope_parameters["full_attention"]
    assert (found.rope_theta, set(found.rope_divisors)) == (full["rope_theta"], {full["factor"]})
    assert found.window_rope_theta == theirs.rope_parameters["sliding_attention"]["rope_theta"]
    assert (found.logit_softcap, found.attention_scale, found.tied) == (0.0, 0.0, True)


def test_the_text_part_of_a_multimodal_checkpoint_is_read(tmp_path: Path) -> None:
    text = transformers.Gemma3TextConfig(**{**SIZES, **GEMMA3})
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=79,
        boi_token_index=78, eoi_token_index=77,
    )  # fmt: skip
    model = randomised(transformers.Gemma3ForConditionalGeneration(config))
    checkpoint = compare(save(model, tmp_path / "hf"), model)
    assert checkpoint.config.family == "gemma3_text"
    assert any("only the language model" in note for note in checkpoint.notes)


def test_left_out_keys_of_a_text_part_are_those_of_transformers() -> None:
    sparse = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
              "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
              "sliding_window": 1024}  # fmt: skip
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
             "text_config": sparse, "eos_token_id": [1, 106], "torch_dtype": "bfloat16"}  # fmt: skip
    found = config_from_hf(outer)
    theirs = transformers.Gemma3TextConfig(**{k: v for k, v in sparse.items() if k != "model_type"})
    assert (found.heads, found.kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert (found.vocab, found.head_dim, found.context) == (262208, 256, theirs.max_position_embeddings)
    assert found.eos == (1, 106)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_activation": "relu"}, "hidden_activation. 'relu', .*expected silu or swish or gelu_py"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention in config.json is 'True'"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "'rope_theta', expected an entry for full_attention"),
        ({"sliding_window": None}, "no sliding_window is in use"),
        ({"sliding_window": None, "layer_types": None}, "sliding_window in config.json is 'None'"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: 50.0, which changes the results"),
        ({"rope_parameters": None, "rope_local_base_freq": 0}, "sliding_attention .* more than 1"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "'linear', which is not supported in layers with a",
        ),
    ],
)
def test_what_gemma3_cannot_have_is_refused(change: dict[str, Any], said: str) -> None:
    model = random_twin("Gemma3Text", **GEMMA3)
    stored = json.loads(json.dumps({**stored_as(model), **change}))
    with pytest.raises(CheckpointError, match=said):
        config_from_hf(stored)
