"""Ministral 3: Mistral with YaRN and queries that grow with their position.

Facts: transformers' modeling_ministral3.py and configuration_ministral3.py, llama.cpp's
src/models/mistral3.cpp.
"""

from rockledge.model.families.declaration import DEFAULTS, Family, Fields
from rockledge.model.families.llama import gguf_biases
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_rope import rope_entry, rope_fields
from rockledge.model.hf_values import HfValues
from rockledge.model.windows import gguf_windows, hf_windows

# What Ministral3Config assumes where nothing is said about the rotary embedding.
_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def _hf(values: HfValues) -> Fields:
    rope = rope_entry(values)
    if not rope.stored:
        rope = HfValues(_ROPE, rope.defaults, rope.place)
    rope.ignore("max_position_embeddings")
    growth = rope.real("llama_4_scaling_beta", 0.0)
    return {
        "windows": hf_windows(values),
        "query_growth": growth,
        "query_growth_length": rope.count("original_max_position_embeddings") if growth else 0,
        **rope_fields(values, rope),
    }


def _gguf(values: GgufValues) -> Fields:
    growth = values.real("attention.temperature_scale", 0.0)
    return {
        **gguf_biases(values),
        "windows": gguf_windows(values),
        "query_growth": growth,
        "query_growth_length": values.count("rope.scaling.original_context_length") if growth else 0,
    }


MINISTRAL3 = Family(
    "ministral3",
    "Ministral3ForCausalLM",
    "mistral3",
    from_hf=_hf,
    from_gguf=_gguf,
    hf_defaults={
        **DEFAULTS,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 262144,
    },
    gguf_interleaved=True,
)
