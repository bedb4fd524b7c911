"""Llama, and the families that differ from it by biases, norms of q and k, or windows."""

from rockledge.model.families.declaration import DEFAULTS, Family, Fields
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_values import HfValues
from rockledge.model.windows import gguf_windows, hf_windows, without_windows


def hf_biases(values: HfValues) -> Fields:
    """Biases of all four linears of attention, and of the three of the feed-forward part, by two flags."""
    attention = values.flag("attention_bias")
    return {"qkv_bias": attention, "o_bias": attention, "mlp_bias": values.flag("mlp_bias")}


def gguf_biases(values: GgufValues) -> Fields:
    """The same by the tensors of the first layer, as llama.cpp finds them."""
    return {
        "qkv_bias": values.has("attn_q.bias"),
        "o_bias": values.has("attn_output.bias"),
        "mlp_bias": values.has("ffn_gate.bias"),
    }


def _llama_hf(values: HfValues) -> Fields:
    without_windows(values, "LlamaForCausalLM")
    return hf_biases(values)


def _llama_gguf(values: GgufValues) -> Fields:
    return {**gguf_biases(values), "windows": gguf_windows(values)}


def _mistral_hf(values: HfValues) -> Fields:
    values.ignore("use_sliding_window", "max_window_layers")
    return {"windows": hf_windows(values)}


def _last_layers(values: HfValues) -> tuple[int, ...]:
    """Qwen's windows: none unless `use_sliding_window` says so; then, without `layer_types`, those of the
    layers from `max_window_layers` on."""
    used, first = values.flag("use_sliding_window"), values.count("max_window_layers", least=0)
    return hf_windows(values, [number >= first for number in range(values.layers)], used=used)


def _qwen2_hf(values: HfValues) -> Fields:
    for key in ("attention_bias", "qkv_bias", "use_qkv_bias"):
        values.neutral(key, True)
    return {"qkv_bias": True, "windows": _last_layers(values)}


def _qwen3_hf(values: HfValues) -> Fields:
    for key in ("use_qk_norm", "qk_norm", "qk_layernorm"):
        values.neutral(key, True)
    bias = values.flag("attention_bias")
    return {"qkv_bias": bias, "o_bias": bias, "qk_norm": True, "windows": _last_layers(values)}


def _qwen2_gguf(values: GgufValues) -> Fields:
    return {"qkv_bias": True, "windows": gguf_windows(values)}


def _qwen3_gguf(values: GgufValues) -> Fields:
    return {**gguf_biases(values), "qk_norm": True, "windows": gguf_windows(values)}


_QWEN = {
    **DEFAULTS,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}

LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    "llama",
    from_hf=_llama_hf,
    from_gguf=_llama_gguf,
    hf_defaults={**DEFAULTS, "max_position_embeddings": 2048},
    gguf_interleaved=True,
)
MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    None,
    from_hf=_mistral_hf,
    hf_defaults={
        **DEFAULTS,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    multimodal=("mistral3", "Mistral3ForConditionalGeneration"),
)
QWEN2 = Family(
    "qwen2", "Qwen2ForCausalLM", "qwen2", from_hf=_qwen2_hf, from_gguf=_qwen2_gguf, hf_defaults=_QWEN
)
QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    "qwen3",
    from_hf=_qwen3_hf,
    from_gguf=_qwen3_gguf,
    hf_defaults={**_QWEN, "head_dim": 128},
)
