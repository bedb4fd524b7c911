"""Configurations in config.json: what a config.json may leave out, what is refused by name, and the way
back."""

import json
from dataclasses import fields
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.checkpoints import MODELS, SIZES

from rockledge.errors import CheckpointError
from rockledge.model.config import ModelConfig, check_config
from rockledge.model.family import FAMILIES
from rockledge.model.hf_config import config_from_hf, config_to_hf, read_hf_config

PLAIN: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 80,
}  # fmt: skip


# MiniCPM is code on the Hub, not a part of transformers.
KNOWN = [name for name in FAMILIES if name in transformers.CONFIG_MAPPING]


@pytest.mark.parametrize("name", KNOWN)
def test_left_out_keys_mean_what_transformers_assumes(name: str) -> None:
    family = FAMILIES[name]
    own: dict[str, Any] = {"num_local_experts": 0, "layer_types": ["full_attention"] * 2}
    own = own if "hybrid" in name else {}
    found = config_from_hf(
        {**PLAIN, "architectures": [family.hf_architecture], "num_attention_heads": 32, **own}
    )
    assumed = transformers.AutoConfig.for_model(
        name, hidden_size=64, num_attention_heads=32, num_hidden_layers=2, **own
    )
    assert found.kv_heads == assumed.num_key_value_heads
    assert found.head_dim == (getattr(assumed, "head_dim", None) or 64 // 32)
    assert found.norm_eps == assumed.rms_norm_eps
    rope = assumed.rope_parameters
    assert found.rope_theta == rope.get("full_attention", rope)["rope_theta"]
    assert found.tied == assumed.tie_word_embeddings
    assert found.context == assumed.max_position_embeddings
    types = getattr(assumed, "layer_types", None) or ["sliding_attention"] * 2
    window = getattr(assumed, "sliding_window", None) or 0
    windows = tuple(window if kind == "sliding_attention" else 0 for kind in types)[:2]
    assert found.windows == (windows if any(windows) else ())


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_writes_is_read_back(name: str) -> None:
    family, own = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **own})
    stored = {**config.to_dict(), "architectures": [f"{family}ForCausalLM"]}
    found = config_from_hf(stored)
    assert (found.hidden, found.ffn, found.layers) == (config.hidden_size, 96, 2)
    assert (found.heads, found.kv_heads) == (config.num_attention_heads, config.num_key_value_heads)
    assert (found.bos, found.eos, found.tied) == (1, (2,), config.tie_word_embeddings)


def test_sliding_windows_are_read_for_every_layer() -> None:
    mistral = {**PLAIN, "architectures": ["MistralForCausalLM"], "max_position_embeddings": 32768}
    mistral["num_key_value_heads"] = 4
    assert config_from_hf({**mistral, "sliding_window": 1024}).windows == (1024, 1024)
    assert config_from_hf({**mistral, "sliding_window": None}).windows == ()
    qwen = {**mistral, "architectures": ["Qwen2ForCausalLM"], "sliding_window": 1024, "max_window_layers": 1}
    assert config_from_hf({**qwen, "use_sliding_window": True}).windows == (0, 1024)
    assert config_from_hf({**qwen, "use_sliding_window": True, "max_window_layers": 2}).windows == ()
    assert config_from_hf({**qwen, "use_sliding_window": False}).windows == ()
    mixed = {**qwen, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}
    assert config_from_hf(mixed).windows == (1024, 0)


def test_end_ids_of_the_generation_config_come_first_and_all_count() -> None:
    found = config_from_hf({**PLAIN, "eos_token_id": 5}, {"eos_token_id": [7, 9, 7]})
    assert found.eos == (7, 9, 5)
    assert config_from_hf(PLAIN).eos == ()


@pytest.mark.parametrize(("absent", "told"), [(80, True), (-2, True), (-1, False), (0xFFFFFFFF, False)])
def test_ids_outside_the_vocabulary_mean_none_and_are_named(absent: int, told: bool) -> None:
    read = read_hf_config({**PLAIN, "eos_token_id": [absent, 3], "bos_token_id": absent})
    assert (read.config.bos, read.config.eos) == (None, (3,))
    said = f"config.json has eos_token_id {absent}, which is outside the vocabulary of 80 tokens"
    assert any(said in note for note in read.notes) is told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM'.*LlamaForCausalLM.*Qwen3ForCausalLM"),
        ({"architectures": None, "model_type": "gpt_neox"}, "'gpt_neox' is not supported"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "already quantised .gptq."),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantised .awq."),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "already quantised .bitsandbytes."),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "quantised .compressed-tensors."),
        ({"rope_scaling": {"type": "su", "factor": 4.0}}, '"su" is not supported; supported are default'),
        ({"rope_scaling": {"type": "yarn", "factor": -4.0}}, "factor is -4.0, which is not a positive"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "truncate": 1}}, "truncate is 1"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "short_factor is not a list of 8 positive numbers"),
        ({"rope_scaling": {"type": "dynamic"}}, "factor is missing"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "not a positive number"),
        ({"rope_parameters": {"rope_theta": 0.0, "rope_type": "llama3"}}, "llama3|rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial"),
        ({"attention_bias": "yes"}, "attention_bias in config.json is 'yes', expected true or false"),
        ({"mlp_bias": 1}, "mlp_bias"),
        ({"layer_types": ["full_attention"]}, "not a list of 2 names"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "LlamaForCausalLM does not have"),
        ({"hidden_act": "gelu"}, "'gelu'.*silu"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**12}, "layers is 1000000000000"),
        ({"head_dim": 10**9}, "head_dim is 1000000000"),
        ({"head_dim": 15}, "even"),
        ({"num_key_value_heads": 3}, "share"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        (
            {"rms_norm_eps": 1e-5, "layer_norm_eps": 0.5},
            "layer_norm_eps: 0.5, which would be ignored, expected 1e-05 as rms_norm_eps has",
        ),
        # Without rms_norm_eps, the architecture's own value is used.
        ({"norm_epsilon": 1e-5}, "norm_epsilon: 1e-05, which would be ignored, expected 1e-06"),
        ({"qkv_norm_kind": "l2"}, "qkv_norm_kind: l2, .*; expected no such key"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"rope_theta": -5.0}, "rope_theta"),
        ({"eos_token_id": "2"}, "eos_token_id"),
        ({"rope_divisors": [1.0]}, "8 positive"),
        ({"rope_divisors": [10**400] * 8}, "rope_divisors"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        config_from_hf({**PLAIN, **change})


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any configuration that `check_config` accepts, with every field drawn; about half are plain ones."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    heads, shared, pairs = draw(st.integers(1, 8)), draw(st.integers(1, 4)), draw(st.integers(2, 16))
    layers, vocab = draw(st.integers(1, 12)), draw(st.integers(1, 1000))
    turned = draw(st.integers(2, pairs))
    divisor, scale = st.floats(0.5, 64), st.floats(0.01, 100)
    token, flag = st.integers(0, vocab - 1), st.booleans()
    plain: dict[str, Any] = {
        "family": family, "hidden": draw(st.integers(1, 512)), "layers": layers, "heads": heads * shared,
        "kv_heads": heads, "head_dim": 2 * pairs, "ffn": draw(st.integers(1, 999)), "vocab": vocab,
        "norm_eps": draw(st.floats(1e-8, 1e-3)), "rope_theta": draw(st.floats(1e3, 1e7)),
        "tied": draw(flag), "context": draw(st.integers(1, 1 << 20)), "bos": draw(st.none() | token),
        "eos": tuple(draw(st.lists(token, max_size=3, unique=True))), "qkv_bias": draw(flag),
        "qk_norm": draw(flag),
    }  # fmt: skip

    def list_of(values: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[tuple[Any, ...]]:
        return st.lists(values, min_size=count, max_size=count).map(tuple)

    if draw(flag):
        return ModelConfig(rope_divisors=draw(list_of(divisor, pairs)), **plain)
    others = {
        "activation": st.sampled_from(["silu", "gelu_tanh"]), "o_bias": flag, "mlp_bias": flag,
        "branch_norms": st.sampled_from(["before", "after", "both"]), "qk_norm_whole": flag,
        "windows": st.just(()) | list_of(st.integers(0, 9), layers), "headless": flag,
        "unturned": st.lists(st.integers(0, layers - 1), unique=True).map(tuple),
        "rotary_channels": st.just(2 * turned), "rope_divisors": list_of(divisor, turned),
        "rope_long_divisors": st.just(()) | list_of(divisor, turned), "rope_factor": scale,
        "rope_original": st.integers(0, 4096), "rope_dynamic": st.just(0.0) | scale,
        "window_rope_theta": st.just(0.0) | st.floats(1e3, 1e6), "attention_scale": st.just(0.0) | scale,
        "attention_softcap": st.just(0.0) | scale, "query_growth": st.just(0.0) | scale,
        "query_growth_length": st.integers(1, 4096), "embedding_scale": scale, "residual_scale": scale,
        "logit_scale": scale, "logit_softcap": st.just(0.0) | scale,
        "pooling": st.sampled_from(["last", "mean"]),
    }  # fmt: skip
    assert {field.name for field in fields(ModelConfig)} == {*plain, *others}
    return ModelConfig(**plain, **{name: draw(strategy) for name, strategy in others.items()})


@given(configs())
@settings(max_examples=200, deadline=None)
def test_a_configuration_survives_its_config_json(config: ModelConfig) -> None:
    written = json.loads(json.dumps(config_to_hf(check_config(config))))
    assert config_from_hf(written) == config
    if set(written) & {"rockledge"}:
        assert set(written["rockledge"]) <= {field.name for field in fields(ModelConfig)}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_the_usual_keys_say_stands_under_no_other(family: str) -> None:
    named = {**PLAIN, "architectures": [FAMILIES[family].hf_architecture], "sliding_window": None}
    assert "rockledge" not in config_to_hf(config_from_hf({**named, "num_attention_heads": 32}))


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([], "rockledge in config.json is not an object"),
        ({"experts": 8}, "has 'experts', which this version does not know"),
        ({"pooling": "cls"}, "pooling under rockledge in config.json is 'cls'"),
        ({"activation": "relu"}, "activation under rockledge in config.json is 'relu'"),
        ({"windows": [0, -1]}, "windows under"),
        ({"windows": [0, 1, 2]}, "3 windows are given for 2 layers"),
        ({"o_bias": 1}, "o_bias under"),
        ({"rope_factor": "1"}, "rope_factor under"),
        ({"rope_factor": 0.0}, "rope_factor is 0.0, expected a number other than 0"),
        ({"unturned": [2]}, "layer 2 is said to have no rotary embedding"),
        ({"rope_original": 1.5}, "rope_original under"),
        ({"rope_long_divisors": [1.0]}, "rope_long_divisors has 1 values, expected 8"),
    ],
)
def test_damaged_fields_of_ours_are_named(stored: object, said: str) -> None:
    ours = config_to_hf(config_from_hf(PLAIN))
    with pytest.raises(CheckpointError, match=said):
        config_from_hf({**ours, "rope_divisors": [1.0] * 8, "rockledge": stored})


def test_transformers_reads_the_config_json_we_write() -> None:
    ours = config_from_hf(PLAIN)
    theirs = transformers.LlamaConfig(**config_to_hf(ours))
    assert (theirs.hidden_size, theirs.num_key_value_heads, theirs.head_dim) == (64, 4, 16)
    assert theirs.rope_parameters["rope_theta"] == ours.rope_theta


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    *PLAIN, "model_type", "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling",
    "rope_parameters", "tie_word_embeddings", "max_position_embeddings", "sliding_window", "eos_token_id",
    "bos_token_id", "hidden_act", "quantization_config", "rope_divisors", "partial_rotary_factor",
    "rockledge", "layer_types", "attention_bias", "text_config",
]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_values_are_read_or_refused(change: dict[str, Any]) -> None:
    try:
        found = config_from_hf({**PLAIN, **change}, change)
    except CheckpointError:
        pass
    else:
        assert check_config(found) == found


FAMILY_KEYS = [
    *KEYS, "hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping",
    "sliding_window_pattern", "rope_local_base_freq", "original_max_position_embeddings", "no_rope_layers",
    "no_rope_layer_interval", "use_sliding_window", "max_window_layers", "mlp_bias", "embedding_multiplier",
    "residual_multiplier", "attention_multiplier", "logits_scaling", "num_local_experts", "scale_emb",
    "shared_intermediate_size", "position_embedding_type", "scale_depth", "dim_model_base",
]  # fmt: skip
ENTRIES = st.dictionaries(
    st.sampled_from(
        ["rope_type", "type", "factor", "rope_theta", "short_factor", "long_factor", "beta_fast", "truncate",
         "mscale", "mscale_all_dim", "attention_factor", "original_max_position_embeddings",
         "partial_rotary_factor", "llama_4_scaling_beta", "full_attention", "sliding_attention"]
    ),
    st.sampled_from(["yarn", "longrope", "dynamic", "linear", "default"]) | JSON,
)  # fmt: skip


@given(
    st.sampled_from(sorted(FAMILIES)),
    st.dictionaries(st.sampled_from(FAMILY_KEYS), JSON | st.just(["full_attention"] * 2), max_size=4),
    st.none() | ENTRIES,
)
@settings(max_examples=400, deadline=None)
def test_any_values_of_any_family_are_read_or_refused(family: str, change: dict[str, Any], rope: Any) -> None:
    stored = {**PLAIN, "architectures": None, "model_type": family, **change}
    if rope is not None:
        stored["rope_scaling"] = rope
    try:
        found = config_from_hf(stored)
    except CheckpointError:
        pass
    else:
        assert check_config(found) == found
        assert config_from_hf(json.loads(json.dumps(config_to_hf(found)))) == found


# Words that keys of known and unknown models are made of.
WORDS = [
    "attention", "attn", "logit", "logits", "embedding", "residual", "rope", "rotary", "expert", "norm",
    "bias", "scale", "multiplier", "softcap", "clip", "window", "mlp", "use", "num", "hidden", "layers",
    "dim", "factor", "author", "date", "extra", "custom",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("_".join), JSON)
@settings(max_examples=300, deadline=None)
def test_no_key_is_passed_over_in_silence(key: str, value: Any) -> None:
    plain = read_hf_config(PLAIN)
    off = value is None or value is False or value in ("", 0, 1) or value in ([], {})
    try:
        found = read_hf_config({**PLAIN, key: value})
    except CheckpointError as error:
        said = str(error)
        used = False
    else:
        said = " ".join(found.notes)
        used = found.config != plain.config  # such as attention_bias
    assert off or used or key in said
