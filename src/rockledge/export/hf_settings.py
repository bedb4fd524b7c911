"""The `config.json` that transformers wants of a model: the way back from a `ModelConfig`, family by family.

Facts: the configuration classes of transformers. What is written is read again by our own reader, and a
model that the target's class cannot describe is refused with the field that it cannot say.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from rockledge.errors import CheckpointError, UsageError
from rockledge.export.rope_words import rope_words
from rockledge.model.config import ModelConfig
from rockledge.model.family import FAMILIES
from rockledge.model.hf_config import read_hf_config
from rockledge.model.windows import FULL, SLIDING

Settings = dict[str, Any]

_ACTIVATIONS: Final = {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}
# Biases that a class has for all linears or for none: where the model has none, zeros are written.
BIASES: Final = ("qkv_bias", "o_bias", "mlp_bias")
# Not in config.json, or checked by what the tensors are.
_ELSEWHERE: Final = ("family", "bos", "eos", "headless", "pooling", "tied", *BIASES)


def hf_settings(config: ModelConfig) -> tuple[Settings, ModelConfig]:
    """The contents of `config.json`, and what our reader makes of it: the configuration whose tensors are
    written. UsageError names the first field that the family's class in transformers cannot hold."""
    target = _target(config)
    family = FAMILIES[target]
    name = family.hf_architecture
    settings: Settings = {
        "architectures": [name.replace("ForCausalLM", "Model") if config.headless else name],
        "model_type": target,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "vocab_size": config.vocab,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied and not config.headless,
        # Dynamic scaling stretches this length, which our own context is after it.
        "max_position_embeddings": config.rope_original if config.rope_dynamic else config.context,
        "hidden_act": _ACTIVATIONS[config.activation],
        "bos_token_id": config.bos,
        "eos_token_id": list(config.eos) if len(config.eos) > 1 else next(iter(config.eos), None),
        "pad_token_id": None,  # classes have defaults that may lie outside of the vocabulary
        "rope_theta": config.rope_theta,
        **_rope(config),
        **_OWN[target](config),
    }
    settings = {key: value for key, value in settings.items() if value is not None or key in _MAY_BE_NULL}
    try:
        read = read_hf_config(settings).config
    except CheckpointError as error:
        raise UsageError(f"{name} of transformers cannot hold this model: {error}") from error
    wanted = functional(replace(config, family=target))
    found = functional(read)
    for field in fields(ModelConfig):
        if field.name not in _ELSEWHERE and not same(getattr(found, field.name), getattr(wanted, field.name)):
            raise UsageError(
                f"{name} of transformers cannot hold a model whose {field.name} is "
                f"{str(getattr(config, field.name))[:60]}; export it to another target"
            )
    missing = [bias for bias in BIASES if getattr(wanted, bias) and not getattr(read, bias)]
    if missing:
        raise UsageError(
            f"{name} of transformers has no place for {missing[0]}; export the model to another target"
        )
    return settings, replace(
        read, headless=config.headless, pooling=config.pooling, tied=config.tied or config.headless
    )


_MAY_BE_NULL: Final = ("pad_token_id", "sliding_window", "attn_logit_softcapping", "final_logit_softcapping")


def _target(config: ModelConfig) -> str:
    """The family whose class in transformers computes the model: its own, or one that says more."""
    if config.family == "minicpm":
        return "granite"  # the same with other names; transformers has no class of MiniCPM's
    if config.family == "granite" and len(config.unturned) == config.layers:
        return "granitemoehybrid"
    if config.family == "llama" and config.windows:
        return "mistral"  # GGUF files call both by one name
    return config.family


def _rope(config: ModelConfig) -> Settings:
    words = rope_words(config)
    if words.kind == "none":
        return {}
    return {"rope_scaling": {"rope_type": words.kind, **words.settings}}


def _layer_types(config: ModelConfig) -> list[str]:
    return [SLIDING if window else FULL for window in config.windows or (0,) * config.layers]


def _window(config: ModelConfig) -> int | None:
    sizes = {window for window in config.windows if window}
    return sizes.pop() if len(sizes) == 1 else None  # of several, reading back shows the difference


def _llama(config: ModelConfig) -> Settings:
    return {"attention_bias": config.qkv_bias or config.o_bias, "mlp_bias": config.mlp_bias}


def _attention_bias(config: ModelConfig) -> Settings:
    return {"attention_bias": config.qkv_bias or config.o_bias}


def _every_layer(config: ModelConfig) -> Settings:
    """Classes with one window for all layers, or none."""
    return {"sliding_window": _window(config)}


def _qwen(config: ModelConfig) -> Settings:
    own = {} if config.family == "qwen2" else _attention_bias(config)
    if not config.windows:
        return {**own, "use_sliding_window": False, "sliding_window": None}
    return {
        **own,
        "use_sliding_window": True,
        "sliding_window": _window(config),
        "max_window_layers": 0,
        "layer_types": _layer_types(config),
    }


def _gemma(config: ModelConfig) -> Settings:
    scalar = config.attention_scale**-2 if config.attention_scale else config.head_dim
    whole = round(scalar)
    return {
        **_attention_bias(config),
        "hidden_activation": _ACTIVATIONS[config.activation],
        "query_pre_attn_scalar": whole if abs(scalar - whole) < 1e-6 * scalar else scalar,
        # A window as long as the context hides nothing.
        "sliding_window": _window(config) or config.context,
        "layer_types": _layer_types(config),
        "final_logit_softcapping": config.logit_softcap or None,
    }


def _gemma2(config: ModelConfig) -> Settings:
    return {**_gemma(config), "attn_logit_softcapping": config.attention_softcap or None}


def _gemma3(config: ModelConfig) -> Settings:
    base = {"rope_local_base_freq": config.window_rope_theta} if config.window_rope_theta else {}
    return {**_gemma(config), **base}


def _phi3(config: ModelConfig) -> Settings:
    # Phi3Config checks and stretches by a length of its own, outside of the scaling.
    return {
        **_every_layer(config),
        "original_max_position_embeddings": config.rope_original or config.context,
        "partial_rotary_factor": (config.rotary_channels or config.head_dim) / config.head_dim,
    }


def _smollm3(config: ModelConfig) -> Settings:
    return {
        **_llama(config),
        "no_rope_layers": [int(layer not in config.unturned) for layer in range(config.layers)],
        "use_sliding_window": bool(config.windows),
        "sliding_window": _window(config),
        "layer_types": _layer_types(config),
    }


def _ministral3(config: ModelConfig) -> Settings:
    words = rope_words(config)
    kind = "default" if words.kind == "none" else words.kind
    rope = {"rope_type": kind, "rope_theta": config.rope_theta, **words.settings}
    if config.query_growth:
        rope |= {
            "llama_4_scaling_beta": config.query_growth,
            "original_max_position_embeddings": config.query_growth_length,
        }
    return {**_every_layer(config), "rope_scaling": None, "rope_parameters": rope}


def _multipliers(config: ModelConfig) -> Settings:
    return {
        "embedding_multiplier": config.embedding_scale,
        "residual_multiplier": config.residual_scale,
        "attention_multiplier": config.attention_scale or config.head_dim**-0.5,
        "logits_scaling": 1 / config.logit_scale,
    }


def _granite(config: ModelConfig) -> Settings:
    return {**_llama(config), **_multipliers(config)}


def _granite_hybrid(config: ModelConfig) -> Settings:
    return {
        **_attention_bias(config),
        **_multipliers(config),
        "layer_types": ["attention"] * config.layers,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "shared_intermediate_size": config.ffn,
        "position_embedding_type": "nope" if config.unturned else "rope",
        # They say nothing about a dense model, but are compared with the hidden size.
        "mamba_n_heads": 1,
        "mamba_d_head": "auto",
    }


_OWN: Mapping[str, Callable[[ModelConfig], Settings]] = {
    "llama": _llama,
    "mistral": _every_layer,
    "ministral3": _ministral3,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "olmo2": _attention_bias,
    "phi3": _phi3,
    "smollm3": _smollm3,
    "granite": _granite,
    "granitemoehybrid": _granite_hybrid,
}


def functional(config: ModelConfig) -> ModelConfig:
    """The same function in one spelling: divisors that stay beyond the original context say nothing."""
    if config.rope_long_divisors in ((), config.rope_divisors):
        config = replace(config, rope_long_divisors=())
        if not config.rope_dynamic:
            config = replace(config, rope_original=0)
    if config.windows and not any(window < config.context for window in config.windows if window):
        config = replace(config, windows=())
    return config


def same(one: Any, other: Any) -> bool:
    """Whether two values of a field are one number, up to what float32 files keep of it."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * max(abs(one), abs(other))
    return bool(one == other)
