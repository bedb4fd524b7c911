"""The numbers that define one model, whatever file they came from.

Everything after the readers (float reference, quantizer, program builder, board model) sees only this.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.family import FAMILIES, Family
from rockledge.model.limits import LARGEST, check_heads, check_size
from rockledge.model.rope import rope_divisors


@dataclass(frozen=True)
class ModelConfig:
    """One decoder. All sizes are counts of elements; `rope_divisors` has `head_dim // 2` entries.

    The rotary angle of pair i at position p is `p * rope_theta ** (-2 i / head_dim) / rope_divisors[i]`;
    Llama 3.1's scaling, linear scaling and GGUF's `rope_freqs` all become divisors, none is all ones.

    `context` is the longest sequence for which results are exact: a model with sliding-window attention is
    cut to its window, because attention here always sees every earlier position.
    """

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    norm_eps: float
    rope_theta: float
    rope_divisors: tuple[float, ...]
    tied: bool
    context: int
    qkv_bias: bool
    qk_norm: bool
    bos: int | None
    eos: tuple[int, ...]


# Keys whose explicit null says something else than leaving them out: no window, no sharing, derived.
_NULL_SPEAKS = ("sliding_window", "num_key_value_heads", "head_dim")


def check_config(config: ModelConfig) -> ModelConfig:
    """The same configuration; CheckpointError names the first number that cannot describe a model."""
    for name in LARGEST:
        check_size(name, getattr(config, name))
    check_heads(config.heads, config.head_dim)
    if config.heads % config.kv_heads:
        raise CheckpointError(
            f"{config.heads} query heads cannot share {config.kv_heads} key/value heads evenly"
        )
    if not 0 <= config.norm_eps < 1 or not 1 < config.rope_theta < 1e12:
        raise CheckpointError(f"norm_eps {config.norm_eps} or rope_theta {config.rope_theta} makes no sense")
    if len(config.rope_divisors) != config.head_dim // 2 or not all(
        0 < d < math.inf for d in config.rope_divisors
    ):
        raise CheckpointError(
            f"expected {config.head_dim // 2} positive RoPE divisors, one for each rotary pair"
        )
    for token in (*config.eos, *(() if config.bos is None else (config.bos,))):
        if not 0 <= token < config.vocab:
            raise CheckpointError(f"special token {token} is outside the vocabulary of {config.vocab}")
    return config


def family_of_hf(config: Mapping[str, Any]) -> Family:
    """The family named by `architectures` (or `model_type`) of a Hugging Face configuration."""
    architectures = config.get("architectures")
    found = architectures[0] if isinstance(architectures, list) and architectures else None
    if found is None:
        found = config.get("model_type")
    for family in FAMILIES.values():
        if found in (family.hf_architecture, family.name):
            return family
    known = ", ".join(f.hf_architecture for f in FAMILIES.values())
    raise CheckpointError(f"the architecture {found!r} is not supported; supported are {known}")


def config_from_hf(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
    """The configuration in a Hugging Face `config.json` (or one written by `config_to_hf`).

    `generation` is `generation_config.json`; its end-of-sequence ids come first. Refuses, by name: unknown
    architectures, checkpoints quantised by another scheme, biases and activations the families do not have,
    and RoPE types that `rope_divisors` does not know.
    """
    _refuse_quantised(config)
    family = family_of_hf(config)
    merged = {**family.hf_defaults, **{k: v for k, v in config.items() if v is not None or k in _NULL_SPEAKS}}
    for key in ("attention_bias", "mlp_bias"):
        if merged.get(key) and not (key == "attention_bias" and family.qkv_bias):
            raise CheckpointError(f"{key} is set, which {family.hf_architecture} is not supported with")
    if merged["hidden_act"] not in ("silu", "swish"):
        raise CheckpointError(f"the activation {merged['hidden_act']!r} is not supported; expected silu")
    hidden, heads = _count(merged, "hidden_size"), _count(merged, "num_attention_heads")
    head_dim = _count(merged, "head_dim") if merged["head_dim"] is not None else hidden // heads
    check_size("head_dim", head_dim)
    rope = _rope(merged)
    theta = _real(rope, "rope_theta")
    divisors = config.get("rope_divisors")
    if divisors is None:
        divisors = rope_divisors(rope, head_dim, theta)
    elif not isinstance(divisors, list) or not all(
        isinstance(d, (int, float)) and abs(d) < 1e300 for d in divisors
    ):
        raise CheckpointError("rope_divisors in config.json is not a list of numbers")
    context = _count(merged, "max_position_embeddings")
    if merged["sliding_window"] is not None and merged["use_sliding_window"]:
        context = min(context, _count(merged, "sliding_window"))
    generation = generation or {}
    ids = [*_ids(generation, "eos_token_id"), *_ids(config, "eos_token_id")]
    bos = [*_ids(config, "bos_token_id"), *_ids(generation, "bos_token_id")]
    return check_config(
        ModelConfig(
            family=family.name,
            hidden=hidden,
            layers=_count(merged, "num_hidden_layers"),
            heads=heads,
            kv_heads=heads
            if merged["num_key_value_heads"] is None
            else _count(merged, "num_key_value_heads"),
            head_dim=head_dim,
            ffn=_count(merged, "intermediate_size"),
            vocab=_count(merged, "vocab_size"),
            norm_eps=_real(merged, "rms_norm_eps"),
            rope_theta=theta,
            rope_divisors=tuple(float(d) for d in divisors),
            tied=bool(merged["tie_word_embeddings"]),
            context=context,
            qkv_bias=family.qkv_bias,
            qk_norm=family.qk_norm,
            bos=bos[0] if bos else None,
            eos=tuple(dict.fromkeys(ids)),
        )
    )


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """A Hugging Face `config.json` for this model; `config_from_hf` gives the same `ModelConfig` back.

    Scaled rotary frequencies are written as `rope_divisors`, a key of ours, because a GGUF file gives nothing
    else.
    """
    family = FAMILIES[config.family]
    written: dict[str, Any] = {
        "architectures": [family.hf_architecture],
        "model_type": family.name,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "vocab_size": config.vocab,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "sliding_window": None,
        "use_sliding_window": False,
        "attention_bias": config.qkv_bias,
        "bos_token_id": config.bos,
        "eos_token_id": list(config.eos),
        "torch_dtype": "float32",
    }
    if any(d != 1.0 for d in config.rope_divisors):
        written["rope_divisors"] = list(config.rope_divisors)
    return written


def _refuse_quantised(config: Mapping[str, Any]) -> None:
    scheme = config.get("quantization_config")
    if scheme:
        method = scheme.get("quant_method", "unknown") if isinstance(scheme, Mapping) else "unknown"
        raise CheckpointError(
            f"the checkpoint is already quantised ({method}); Rockledge needs the original bfloat16, "
            f"float16 or "
            "float32 weights"
        )


def _rope(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Old files have `rope_theta` and `rope_scaling`, newer ones `rope_parameters` with both inside."""
    rope: dict[str, Any] = {"rope_theta": merged["rope_theta"]}
    for key in ("rope_scaling", "rope_parameters"):
        entry = merged.get(key)
        if entry is not None and not isinstance(entry, Mapping):
            raise CheckpointError(f"{key} in config.json is not an object")
        rope.update(entry or {})
    if rope.get("partial_rotary_factor", merged.get("partial_rotary_factor", 1.0)) != 1.0:
        raise CheckpointError("partial_rotary_factor is not 1; partial rotary embeddings are not supported")
    return rope


def _count(source: Mapping[str, Any], key: str) -> int:
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{key} in config.json is {value!r}, expected a positive whole number")
    return value


def _real(source: Mapping[str, Any], key: str) -> float:
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise CheckpointError(f"{key} in config.json is {value!r}, expected a number")
    return float(value)


def _ids(source: Mapping[str, Any], key: str) -> list[int]:
    value = source.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
        raise CheckpointError(f"{key} is {value!r}, expected a token id or a list of them")
    return ids
