"""The configuration in a Hugging Face `config.json`, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.bos_eos import BosEosEntries, TokenizerFacts, bos_and_eos
from rockledge.model.config import ModelConfig, check_config
from rockledge.model.family import FAMILIES, Family
from rockledge.model.hf_keys import check_keys, check_rope_keys
from rockledge.model.limits import check_size
from rockledge.model.rope import rope_divisors

# Keys whose explicit null means something other than leaving them out: no window, no sharing, derived.
_NULL_SPEAKS = ("sliding_window", "num_key_value_heads", "head_dim")


@dataclass(frozen=True)
class HfConfig:
    """What was read. `notes`: sentences about what was guessed or is unusual.

    `stated_tied` is what config.json says about the head, None where it says nothing; `config.tied` is then
    the default of the architecture.
    """

    config: ModelConfig
    stated_tied: bool | None
    notes: tuple[str, ...]


def config_from_hf(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
    """The configuration in a `config.json` (or one written by `config_to_hf`); errors as `read_hf_config`."""
    return read_hf_config(config, generation).config


def read_hf_config(
    config: Mapping[str, Any],
    generation: Mapping[str, Any] | None = None,
    tokenizer: TokenizerFacts | None = None,
) -> HfConfig:
    """The configuration in a `config.json` beside its `generation_config.json` and tokenizer files.

    CheckpointError names what is refused: unknown architectures, checkpoints quantised by another scheme,
    biases and activations that the families do not have, RoPE types that `rope_divisors` does not know, and
    other keys that change the results.
    """
    _refuse_quantised(config)
    notes: list[str] = []
    family = _family(config, notes)
    notes += check_keys(config, family)
    merged = {**family.hf_defaults, **{k: v for k, v in config.items() if v is not None or k in _NULL_SPEAKS}}
    if merged["hidden_act"] not in ("silu", "swish"):
        raise CheckpointError(
            f"config.json has the activation (hidden_act) {merged['hidden_act']!r}, which is not supported; "
            "expected silu"
        )
    hidden, heads = _count(merged, "hidden_size"), _count(merged, "num_attention_heads")
    head_dim = _count(merged, "head_dim") if merged["head_dim"] is not None else hidden // heads
    check_size("head_dim", head_dim)
    rope = _rope(merged, notes)
    theta = _real(rope, "rope_theta")
    divisors = config.get("rope_divisors")
    if divisors is None:
        divisors = rope_divisors(rope, head_dim, theta)
    elif not isinstance(divisors, list) or not all(
        isinstance(d, (int, float)) and abs(d) < 1e300 for d in divisors
    ):
        raise CheckpointError("rope_divisors in config.json is not a list of numbers")
    layers, vocab = _count(merged, "num_hidden_layers"), _count(merged, "vocab_size")
    stated_tied = config.get("tie_word_embeddings")
    if stated_tied is not None and not isinstance(stated_tied, bool):
        raise CheckpointError(
            f"tie_word_embeddings in config.json is {str(stated_tied)[:60]}, expected true or false"
        )
    entries = (
        BosEosEntries("generation_config.json", _ids(generation or {}, "bos"), _ids(generation or {}, "eos")),
        BosEosEntries("config.json", _ids(config, "bos"), _ids(config, "eos")),
    )
    special = bos_and_eos(entries, tokenizer or TokenizerFacts(), vocab)
    read = ModelConfig(
        family=family.name,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads if merged["num_key_value_heads"] is None else _count(merged, "num_key_value_heads"),
        head_dim=head_dim,
        ffn=_count(merged, "intermediate_size"),
        vocab=vocab,
        norm_eps=_real(merged, "rms_norm_eps"),
        rope_theta=theta,
        rope_divisors=tuple(float(d) for d in divisors),
        tied=bool(merged["tie_word_embeddings"]),
        context=_context(merged, family, layers, notes),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        bos=special.bos,
        eos=special.eos,
    )
    return HfConfig(check_config(read), stated_tied, (*notes, *special.notes))


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


def _family(config: Mapping[str, Any], notes: list[str]) -> Family:
    """The family that `model_type` names, as in transformers' AutoModelForCausalLM; else `architectures`.

    A model saved without its head ("LlamaModel") belongs to the family too.
    """
    architectures, model_type = config.get("architectures"), config.get("model_type")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    by_name = {
        name: family
        for family in FAMILIES.values()
        for name in (family.hf_architecture, family.hf_architecture.replace("ForCausalLM", "Model"))
    }
    found = by_name.get(named) if isinstance(named, str) else None
    typed = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if (named is not None and found is None) or (found is None and typed is None):
        known = ", ".join(family.hf_architecture for family in FAMILIES.values())
        raise CheckpointError(
            f"the architecture {named if named is not None else model_type!r} is not supported; "
            f"supported are {known}"
        )
    if model_type is not None and typed is None:
        raise CheckpointError(
            f"config.json has model_type {model_type!r}, which is not supported; supported are "
            f"{', '.join(FAMILIES)}"
        )
    if found is not None and typed is not None and found is not typed:
        notes.append(
            f"config.json names the architecture {named} and the model_type {model_type}; "
            "the model_type counts, as in transformers."
        )
    family = typed or found
    assert family is not None
    return family


def _refuse_quantised(config: Mapping[str, Any]) -> None:
    scheme = config.get("quantization_config")
    if scheme:
        method = scheme.get("quant_method", "unknown") if isinstance(scheme, Mapping) else "unknown"
        raise CheckpointError(
            f"the checkpoint is already quantised ({method}), expected the original bfloat16, "
            "float16 or float32 weights"
        )


def _rope(merged: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """One description of the rotary embedding, out of two spellings.

    Old files have `rope_theta` and `rope_scaling`, newer ones `rope_parameters` with both inside.
    transformers' order (`convert_rope_params_to_dict` in modeling_rope_utils.py): a `rope_scaling` that is
    not empty replaces `rope_parameters` whole, its base included; a base inside counts before one outside;
    the length before scaling is the one outside, then the one inside, then `max_position_embeddings`.
    """
    entries = {}
    for key in ("rope_scaling", "rope_parameters"):
        entry = merged.get(key)
        if entry is not None and not isinstance(entry, Mapping):
            raise CheckpointError(f"{key} in config.json is not an object")
        if entry:
            entries[key] = entry
    place = next(iter(entries), "rope_scaling")
    rope = dict(entries.get(place, {}))
    if len(entries) == 2 and entries["rope_scaling"] != entries["rope_parameters"]:
        notes.append(
            "config.json has both rope_scaling and rope_parameters; rope_scaling counts, as in transformers, "
            f"with the base {rope.get('rope_theta', merged['rope_theta'])}."
        )
    notes += check_rope_keys(rope, place)
    rope.setdefault("rope_theta", merged["rope_theta"])
    rope.setdefault("original_max_position_embeddings", merged["max_position_embeddings"])
    if "original_max_position_embeddings" in merged:
        rope["original_max_position_embeddings"] = merged["original_max_position_embeddings"]
    return rope


def _context(merged: Mapping[str, Any], family: Family, layers: int, notes: list[str]) -> int:
    """The longest sequence for which attention to every earlier position is exact.

    `layer_types` says which layers have a window; without it the family's rule does (`Family.window`).
    """
    context = _count(merged, "max_position_embeddings")
    width, types = merged["sliding_window"], merged.get("layer_types")
    if family.window == "none":
        if width is not None:
            notes.append(
                f"config.json has sliding_window, which {family.hf_architecture} does not use; it is ignored."
            )
        if types is not None and set(_strings(types, layers)) != {"full_attention"}:
            raise CheckpointError(
                f"config.json has layer_types other than full_attention, which {family.hf_architecture} does "
                "not have"
            )
        return context
    if family.window == "last" and not merged["use_sliding_window"]:
        width = None
    if types is not None:
        windowed = sum(kind == "sliding_attention" for kind in _strings(types, layers))
        if other := set(types) - {"full_attention", "sliding_attention"}:
            raise CheckpointError(
                f"config.json has layers of type {min(other)!r}; supported are full_attention and "
                "sliding_attention"
            )
        if windowed and width is None:
            raise CheckpointError(
                "layer_types in config.json has sliding_attention, but no sliding_window is in use; "
                "give the window, or full_attention"
            )
    elif width is None:
        windowed = 0
    else:
        first = _count(merged, "max_window_layers", least=0) if family.window == "last" else 0
        windowed = max(0, layers - first)
    if not windowed:
        return context
    width = _count(merged, "sliding_window")
    if width < context:
        notes.append(
            f"{windowed} of {layers} layers attend to a window of {width} tokens; the context is cut to "
            "it from "
            f"{context}, because every layer here attends to all earlier tokens."
        )
    return min(context, width)


def _strings(value: object, count: int) -> list[str]:
    if not isinstance(value, list) or len(value) != count or not all(isinstance(v, str) for v in value):
        raise CheckpointError(
            f"layer_types in config.json is not a list of {count} names, one for each layer"
        )
    return value


def _count(source: Mapping[str, Any], key: str, least: int = 1) -> int:
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CheckpointError(f"{key} in config.json is {value!r}, expected a positive whole number")
    return value


def _real(source: Mapping[str, Any], key: str) -> float:
    value = source.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise CheckpointError(f"{key} in config.json is {value!r}, expected a number")
    return float(value)


def _ids(source: Mapping[str, Any], which: str) -> tuple[int, ...]:
    key = f"{which}_token_id"
    value = source.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
        raise CheckpointError(f"{key} is {value!r}, expected a token id or a list of them")
    return tuple(ids)
