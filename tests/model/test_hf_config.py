"""Configurations in config.json: what a config.json may leave out, what is refused by name, and the way
back."""

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


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_left_out_keys_mean_what_transformers_assumes(family: Any) -> None:
    found = config_from_hf({**PLAIN, "architectures": [family.hf_architecture], "num_attention_heads": 32})
    assumed = getattr(transformers, family.hf_architecture.replace("ForCausalLM", "Config"))(
        hidden_size=64, num_attention_heads=32
    )
    assert found.kv_heads == assumed.num_key_value_heads
    assert found.head_dim == (getattr(assumed, "head_dim", None) or 64 // 32)
    assert found.norm_eps == assumed.rms_norm_eps
    assert found.rope_theta == assumed.rope_parameters["rope_theta"]
    assert found.tied == assumed.tie_word_embeddings
    window = getattr(assumed, "sliding_window", None)
    assert found.context == min(assumed.max_position_embeddings, window or 1 << 40)


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_writes_is_read_back(name: str) -> None:
    family, own = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **own})
    stored = {**config.to_dict(), "architectures": [f"{family}ForCausalLM"]}
    found = config_from_hf(stored)
    assert (found.hidden, found.ffn, found.layers) == (config.hidden_size, 96, 2)
    assert (found.heads, found.kv_heads) == (config.num_attention_heads, config.num_key_value_heads)
    assert (found.bos, found.eos, found.tied) == (1, (2,), config.tie_word_embeddings)


def test_a_sliding_window_bounds_the_context() -> None:
    mistral = {**PLAIN, "architectures": ["MistralForCausalLM"], "max_position_embeddings": 32768}
    mistral["num_key_value_heads"] = 4
    assert config_from_hf({**mistral, "sliding_window": 1024}).context == 1024
    assert config_from_hf({**mistral, "sliding_window": None}).context == 32768
    qwen = {**mistral, "architectures": ["Qwen2ForCausalLM"], "sliding_window": 1024, "max_window_layers": 1}
    assert config_from_hf({**qwen, "use_sliding_window": True}).context == 1024
    assert config_from_hf({**qwen, "use_sliding_window": True, "max_window_layers": 2}).context == 32768
    assert config_from_hf({**qwen, "use_sliding_window": False}).context == 32768


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
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, '"yarn" is not supported; supported are default'),
        ({"rope_scaling": {"rope_type": "longrope"}}, '"longrope" is not supported'),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, '"dynamic" is not supported'),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "not a positive number"),
        ({"rope_parameters": {"rope_theta": 0.0, "rope_type": "llama3"}}, "llama3|rope_theta"),
        ({"partial_rotary_factor": 0.5}, "partial"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
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
    family = FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]
    heads, shared, pairs = draw(st.integers(1, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 16))
    divisor = st.floats(0.5, 64, allow_nan=False)
    vocab = draw(st.integers(1, 1000))
    token = st.integers(0, vocab - 1)
    return ModelConfig(
        family=family.name, hidden=draw(st.integers(1, 512)), layers=draw(st.integers(1, 48)),
        heads=heads * shared, kv_heads=heads, head_dim=2 * pairs, ffn=draw(st.integers(1, 999)), vocab=vocab,
        norm_eps=draw(st.floats(1e-8, 1e-3)), rope_theta=draw(st.floats(1e3, 1e7)),
        rope_divisors=tuple(draw(st.lists(divisor, min_size=pairs, max_size=pairs))),
        tied=draw(st.booleans()), context=draw(st.integers(1, 1 << 20)),
        qkv_bias=family.qkv_bias, qk_norm=family.qk_norm,
        bos=draw(st.none() | token), eos=tuple(draw(st.lists(token, max_size=3, unique=True))),
    )  # fmt: skip


@given(configs())
@settings(max_examples=100, deadline=None)
def test_a_configuration_survives_its_config_json(config: ModelConfig) -> None:
    assert config_from_hf(config_to_hf(config)) == config


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
    else:
        assert found.config == plain.config
        said = " ".join(found.notes)
    assert off or key in said
