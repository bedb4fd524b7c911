"""Phi-3 and Phi-4-mini: q, k and v in one tensor, gate and up in another; a part of each head may turn, and
contexts are stretched by LongRoPE.

Facts: transformers' modeling_phi3.py and configuration_phi3.py, llama.cpp's src/models/phi3.cpp. A window
that a GGUF file states is followed, as in transformers; llama.cpp passes it over at present.
"""

from rockledge.model.families.declaration import DEFAULTS, NAMES, Family, Fields
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_rope import rope_entry, rope_fields
from rockledge.model.hf_values import HfValues
from rockledge.model.windows import gguf_windows, hf_windows

_QKV = ("model.layers.{i}.self_attn.qkv_proj", "blk.{i}.attn_qkv")
_GATE_UP = ("model.layers.{i}.mlp.gate_up_proj", "blk.{i}.ffn_up")
_OLDER_NAMES = ("su", "yarn")  # of longrope, in this family's files only


def _hf(values: HfValues) -> Fields:
    rope = rope_entry(values)
    if rope.get("rope_type", rope.get("type")) in _OLDER_NAMES:
        rope = HfValues({**rope.stored, "rope_type": "longrope"}, rope.defaults, rope.place)
    return {"windows": hf_windows(values), **rope_fields(values, rope, partial=True)}


def _gguf(values: GgufValues) -> Fields:
    return {"windows": gguf_windows(values)}


PHI3 = Family(
    "phi3",
    "Phi3ForCausalLM",
    "phi3",
    {
        **NAMES,
        **dict.fromkeys(("attn.q", "attn.k", "attn.v"), _QKV),
        **dict.fromkeys(("ffn.gate", "ffn.up"), _GATE_UP),
    },
    _hf,
    _gguf,
    hf_defaults={
        **DEFAULTS,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
    },
)
