"""OLMo 2: norms after each branch only; queries and keys are normed over the whole projection.

Facts: transformers' modeling_olmo2.py, llama.cpp's src/models/olmo2.cpp (its windows and scaling there are
those of OLMo 3, which is not this family).
"""

from rockledge.model.families.declaration import DEFAULTS, NAMES, Family, Fields
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_values import HfValues

_NAMES = {
    **NAMES,
    "attn.after_norm": ("model.layers.{i}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
    "ffn.after_norm": ("model.layers.{i}.post_feedforward_layernorm", "blk.{i}.post_ffw_norm"),
}
_SHARED: Fields = {"branch_norms": "after", "qk_norm": True, "qk_norm_whole": True}


def _hf(values: HfValues) -> Fields:
    bias = values.flag("attention_bias")
    return {**_SHARED, "qkv_bias": bias, "o_bias": bias}


def _gguf(_: GgufValues) -> Fields:
    return dict(_SHARED)


OLMO2 = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    "olmo2",
    _NAMES,
    _hf,
    _gguf,
    hf_defaults={**DEFAULTS, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
)
