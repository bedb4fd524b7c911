"""The configuration in a Hugging Face `config.json`, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rockledge.errors import CheckpointError
from rockledge.model.bos_eos import BosEosEntries, TokenizerFacts, bos_and_eos
from rockledge.model.config import ModelConfig, check_config
from rockledge.model.families.declaration import Family, Fields
from rockledge.model.family import FAMILIES
from rockledge.model.hf_keys import check_keys
from rockledge.model.hf_rope import rope_fields, stored_rope
from rockledge.model.hf_values import HfValues
from rockledge.model.limits import check_size
from rockledge.model.missing import missing
from rockledge.model.stored_config import KEY, fields_to_store, stored_fields
from rockledge.model.windows import narrow


@dataclass(frozen=True)
class HfConfig:
    """What was read. `notes`: sentences about what was guessed or is unusual.

    `stated_tied` is what config.json says about the head, None where it says nothing; `config.tied` is then
    the default of the architecture. `multimodal`: the model is the text part of the checkpoint.
    """

    config: ModelConfig
    stated_tied: bool | None
    notes: tuple[str, ...]
    multimodal: bool = False


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
    values that the family does not have, and other keys that change the results.
    """
    text, multimodal = language_model(config)
    notes: list[str] = []
    family = _family(text, notes)
    for part in (config, text):
        _refuse_quantised(part)
    if multimodal:
        notes.append(
            f"The checkpoint has other parts ({config['model_type']}); only the language model is read."
        )
    values = HfValues(text, family.hf_defaults, "text_config in config.json" if multimodal else "config.json")
    hidden, layers, vocab = values.hidden, values.layers, values.count("vocab_size")
    check_size("head_dim", values.head_dim)
    check_size("layers", layers)
    tied = values.flag("tie_word_embeddings")
    heads = values.count("num_attention_heads")
    shared = values.get("num_key_value_heads")
    entries = (
        BosEosEntries("generation_config.json", _ids(generation or {}, "bos"), _ids(generation or {}, "eos")),
        BosEosEntries("config.json", _ids(text, "bos"), _ids(text, "eos")),
    )
    values.ignore("bos_token_id", "eos_token_id")
    special = bos_and_eos(entries, tokenizer or TokenizerFacts(), vocab)
    fields = {
        "family": family.name,
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": heads if shared is None else values.count("num_key_value_heads"),
        "head_dim": values.head_dim,
        "vocab": vocab,
        "norm_eps": values.real("rms_norm_eps"),
        "tied": tied,
        "context": values.context,
        "qkv_bias": False,
        "qk_norm": False,
        "bos": special.bos,
        "eos": special.eos,
        **_own_fields(values, family),
    }
    if "ffn" not in fields:
        fields["ffn"] = values.count("intermediate_size")
    notes += check_keys(values, family) + values.notes
    read = check_config(ModelConfig(**fields))
    stated_tied = tied if "tie_word_embeddings" in text else None
    return HfConfig(read, stated_tied, (*notes, *special.notes), multimodal)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """A `config.json` for this model; `config_from_hf` gives the same `ModelConfig` back.

    Its keys are Hugging Face's as far as the family's reading of them says everything; other fields stand
    under a key of ours. Scaled rotary frequencies are written as `rope_divisors`, because a GGUF file gives
    nothing else.
    """
    written: dict[str, Any] = {
        "architectures": [FAMILIES[config.family].hf_architecture],
        "model_type": config.family,
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
    if not _says_all(written, config):
        written |= {"rope_divisors": list(config.rope_divisors), KEY: fields_to_store(config)}
    return written


def _says_all(written: Mapping[str, Any], config: ModelConfig) -> bool:
    try:
        return read_hf_config(written).config == config
    except CheckpointError:
        return False


def _own_fields(values: HfValues, family: Family) -> Fields:
    """The fields in which the model differs from a plain one."""
    if KEY in values.stored:
        values.ignore(KEY, "hidden_act", "sliding_window", "use_sliding_window", "attention_bias")
        return {**stored_fields(values.stored[KEY]), **stored_rope(values)}
    fields = family.from_hf(values)
    if "activation" not in fields:
        fields["activation"] = values.activation()
    if "rope_divisors" not in fields:
        fields |= rope_fields(values)
    return narrow(fields, values.context)


# What a checkpoint with more parts than a language model says for all of them.
_OUTER = ("bos_token_id", "eos_token_id")


def language_model(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """What describes the language model, and whether that is only a part of the whole (`text_config`)."""
    kinds = {family.multimodal[0]: family for family in FAMILIES.values() if family.multimodal is not None}
    family = kinds.get(str(config.get("model_type")))
    text = config.get("text_config")
    if family is None:
        return config, False
    if not isinstance(text, Mapping):
        raise CheckpointError(
            f"text_config in config.json is {str(text)[:60]!r}, expected what describes the language model"
        )
    outer = {key: config[key] for key in _OUTER if config.get(key) is not None}
    inner = {key: value for key, value in text.items() if key != "architectures" and value is not None}
    silent = {key: None for key, value in text.items() if value is None}
    # Both classes of transformers that hold text parts tie by default, and their own flag counts.
    tied = {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
    return {"model_type": family.name, **silent, **outer, **inner, **tied}, True


def _family(config: Mapping[str, Any], notes: list[str]) -> Family:
    """The family that `model_type` names, as in transformers' AutoModelForCausalLM; else `architectures`.

    A model saved without its head ("LlamaModel") belongs to the family too.
    """
    architectures, model_type = config.get("architectures"), config.get("model_type")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    by_name = {
        name: family
        for family in FAMILIES.values()
        for part in ("ForCausalLM", "Model", "TextModel")
        for name in [family.hf_architecture.replace("ForCausalLM", part)]
    }
    found = by_name.get(named) if isinstance(named, str) else None
    typed = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if (named is not None and found is None) or (found is None and typed is None):
        known = ", ".join(family.hf_architecture for family in FAMILIES.values())
        raise CheckpointError(
            f"the architecture {named if named is not None else model_type!r} is not supported"
            f"{missing(model_type, config)}; supported are {known}"
        )
    if model_type is not None and typed is None:
        raise CheckpointError(
            f"config.json has model_type {model_type!r}, which is not supported"
            f"{missing(model_type, config)}; supported are {', '.join(FAMILIES)}"
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


def _ids(source: Mapping[str, Any], which: str) -> tuple[int, ...]:
    key = f"{which}_token_id"
    value = source.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
        raise CheckpointError(f"{key} is {value!r}, expected a token id or a list of them")
    return tuple(ids)
