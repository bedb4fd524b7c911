"""Gemma 2 and 3: norms before and after, gains of 1 + w, a scaled embedding, windows; then soft caps (2), or
norms of q and k and a rotary base of its own in layers with a window (3).

Facts: transformers' modeling_gemma2.py and modeling_gemma3.py, llama.cpp's src/models/gemma2.cpp and
gemma3.cpp.
"""

from collections.abc import Mapping

from rockledge.errors import CheckpointError
from rockledge.model.families.declaration import DEFAULTS, NAMES, Family, Fields
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_rope import rope_fields
from rockledge.model.hf_values import HfValues
from rockledge.model.windows import every, gguf_windows, hf_windows

_NAMES = {
    **NAMES,
    "attn.after_norm": ("model.layers.{i}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
    "ffn.norm": ("model.layers.{i}.pre_feedforward_layernorm", "blk.{i}.ffn_norm"),
    "ffn.after_norm": ("model.layers.{i}.post_feedforward_layernorm", "blk.{i}.post_ffw_norm"),
}
_DEFAULTS = {
    **DEFAULTS,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_WINDOW_BASE = 10000.0  # of rotary turns in Gemma 3's layers with a window


def _shared(hidden: int) -> Fields:
    return {"branch_norms": "both", "embedding_scale": hidden**0.5}


def _scale(scalar: float, head_dim: int) -> float:
    """The field `attention_scale` for scores divided by sqrt(`scalar`)."""
    return 0.0 if scalar == head_dim else scalar**-0.5


def _hf(values: HfValues, period: int) -> Fields:
    values.ignore("hidden_act")  # an older name, which transformers does not read
    if values.flag("use_bidirectional_attention"):
        raise values.wrong(
            "use_bidirectional_attention", "false: attention in both directions is not supported"
        )
    # Gemma 2 9B and 27B state their window twice.
    values.neutral("sliding_window_size", values.get("sliding_window"))
    windowed = every(period, values.layers)
    if values.get("sliding_window") is None and values.get("layer_types") is None and any(windowed):
        raise values.wrong("sliding_window", "a number of positions")
    bias = values.flag("attention_bias")
    scalar = values.real("query_pre_attn_scalar")
    if scalar <= 0:
        raise values.wrong("query_pre_attn_scalar", "a positive number")
    return {
        **_shared(values.hidden),
        "activation": values.activation("hidden_activation"),
        "qkv_bias": bias,
        "o_bias": bias,
        "attention_scale": _scale(scalar, values.head_dim),
        "logit_softcap": values.real("final_logit_softcapping", 0.0),
        "windows": hf_windows(values, windowed),
    }


def _gemma2_hf(values: HfValues) -> Fields:
    return {**_hf(values, 2), "attention_softcap": values.real("attn_logit_softcapping", 0.0)}


def _gemma3_hf(values: HfValues) -> Fields:
    values.ignore("_sliding_window_pattern")  # `layer_types` say the same
    period = values.count("sliding_window_pattern")
    fields = _hf(values, period)
    whole, window = _rope_entries(values)
    if (kind := window.get("rope_type", window.get("type", "default"))) != "default":
        raise CheckpointError(
            f"{window.place} has rope_type {str(kind)[:60]!r}, which is not supported in layers with a "
            "window; supported is default"
        )
    base = window.real("rope_theta")
    if base <= 1:
        raise window.wrong("rope_theta", "more than 1")
    return {
        **fields,
        "qk_norm": True,
        **rope_fields(values, whole),
        "window_rope_theta": base if fields["windows"] else 0.0,
    }


def _rope_entries(values: HfValues) -> tuple[HfValues, HfValues]:
    """The rotary embedding of full layers and of those with a window (`convert_rope_params_to_dict` of
    Gemma3TextConfig: a `rope_scaling` is that of full layers)."""
    both, scaling = values.get("rope_parameters", {}), values.get("rope_scaling", {})
    if not isinstance(both, Mapping) or not isinstance(scaling, Mapping):
        raise CheckpointError(f"rope_parameters or rope_scaling in {values.place} is not an object")
    if unknown := set(both) - {"full_attention", "sliding_attention"}:
        raise CheckpointError(
            f"rope_parameters in {values.place} has {min(unknown)[:60]!r}, expected an entry for "
            "full_attention and one for sliding_attention"
        )
    found = []
    for kind, base, own in (
        ("full_attention", values.get("rope_theta"), scaling),
        ("sliding_attention", values.real("rope_local_base_freq", _WINDOW_BASE), {}),
    ):
        entry = both.get(kind)
        entry = {} if entry is None else entry
        if not isinstance(entry, Mapping):
            raise CheckpointError(f"{kind} in rope_parameters in {values.place} is not an object")
        defaults = {"rope_theta": base, "original_max_position_embeddings": values.context}
        found.append(HfValues({**entry, **own}, defaults, f"{kind} in rope_parameters"))
    return found[0], found[1]


def _gguf_scale(values: GgufValues, largest: int) -> float:
    """GGUF says nothing of the scale; the largest model, known by its layers, divides by the square root of
    hidden / heads, which is not its head_dim."""
    if values.layers != largest:
        return 0.0
    return _scale(values.hidden // values.count("attention.head_count"), values.head_dim)


def _gemma2_gguf(values: GgufValues) -> Fields:
    return {
        **_shared(values.hidden),
        "activation": "gelu_tanh",
        "attention_scale": _gguf_scale(values, 46),
        "attention_softcap": values.real("attn_logit_softcapping", 50.0),
        "logit_softcap": values.real("final_logit_softcapping", 30.0),
        "windows": gguf_windows(values, 2, 4096),
    }


def _gemma3_gguf(values: GgufValues) -> Fields:
    windows = gguf_windows(values, 6)
    base = values.real("rope.freq_base_swa", _WINDOW_BASE)
    if base <= 1:
        raise values.wrong("rope.freq_base_swa", base, "more than 1")
    return {
        **_shared(values.hidden),
        "activation": "gelu_tanh",
        "qk_norm": True,
        "attention_scale": _gguf_scale(values, 62),
        "logit_softcap": values.real("final_logit_softcapping", 0.0),
        "windows": windows,
        "window_rope_theta": base if windows else 0.0,
    }


GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    "gemma2",
    _NAMES,
    _gemma2_hf,
    _gemma2_gguf,
    hf_defaults={
        **_DEFAULTS,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    hf_gain_offset=1.0,
)
GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    "gemma3",
    _NAMES,
    _gemma3_hf,
    _gemma3_gguf,
    hf_defaults={
        **_DEFAULTS,
        # `text_config` of multimodal checkpoints leaves these out.
        "num_attention_heads": 8,
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "max_position_embeddings": 131072,
        "rope_theta": 1e6,
        "sliding_window_pattern": 6,
    },
    hf_gain_offset=1.0,
    multimodal=("gemma3", "Gemma3ForConditionalGeneration"),
)
