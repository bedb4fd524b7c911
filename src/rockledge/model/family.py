"""Decoder families as frozen declarations: which tensors they have, what they are called, how they connect.

The float reference, the quantizer and the program builder are written once and read these tables; a new
family is one more entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from rockledge.model.block import Linear, Norm, decoder, layer_name
from rockledge.model.config import ModelConfig


@dataclass(frozen=True)
class Family:
    """One architecture. `hf_defaults` are the values a Hugging Face `config.json` may leave out.

    `names`: of each role, its stored names without ".weight" in the two formats, with `{i}` for the layer.
    `gguf` is None where llama.cpp stores the family under another architecture's name. `gguf_interleaved`:
    GGUF stores the rows of Q and K so that rotary pairs are neighbours. `qkv_bias`: Q, K and V have biases;
    `qk_norm`: queries and keys are normed per head before the rotary embedding. `window`: which layers attend
    to a sliding window where the configuration has one and no `layer_types`: none; all; or, if
    `use_sliding_window` says so, those from `max_window_layers` on (transformers' modeling files).
    """

    name: str
    hf_architecture: str
    gguf: str | None
    names: Mapping[str, tuple[str, str]]
    gguf_interleaved: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    window: Literal["none", "all", "last"] = "none"
    hf_defaults: Mapping[str, Any] = field(default_factory=dict)


_ATTENTION, _FFN, _BLOCK = "model.layers.{i}.self_attn.", "model.layers.{i}.mlp.", "blk.{i}."

_NAMES = {
    "embed": ("model.embed_tokens", "token_embd"),
    "attn.norm": ("model.layers.{i}.input_layernorm", _BLOCK + "attn_norm"),
    "ffn.norm": ("model.layers.{i}.post_attention_layernorm", _BLOCK + "ffn_norm"),
    "attn.q_norm": (_ATTENTION + "q_norm", _BLOCK + "attn_q_norm"),
    "attn.k_norm": (_ATTENTION + "k_norm", _BLOCK + "attn_k_norm"),
    "attn.q": (_ATTENTION + "q_proj", _BLOCK + "attn_q"),
    "attn.k": (_ATTENTION + "k_proj", _BLOCK + "attn_k"),
    "attn.v": (_ATTENTION + "v_proj", _BLOCK + "attn_v"),
    "attn.o": (_ATTENTION + "o_proj", _BLOCK + "attn_output"),
    "ffn.gate": (_FFN + "gate_proj", _BLOCK + "ffn_gate"),
    "ffn.up": (_FFN + "up_proj", _BLOCK + "ffn_up"),
    "ffn.down": (_FFN + "down_proj", _BLOCK + "ffn_down"),
    "final_norm": ("model.norm", "output_norm"),
    "head": ("lm_head", "output"),
}

# Left-out values are those of the transformers configuration classes; None means "derived from the others".
_DEFAULTS = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
    "hidden_act": "silu",
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 28,
}

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                "llama",
                "LlamaForCausalLM",
                "llama",
                _NAMES,
                gguf_interleaved=True,
                hf_defaults=_DEFAULTS | {"max_position_embeddings": 2048},
            ),
            Family(
                "mistral",
                "MistralForCausalLM",
                None,
                _NAMES,
                window="all",
                hf_defaults=_DEFAULTS
                | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
            ),
            Family(
                "qwen2",
                "Qwen2ForCausalLM",
                "qwen2",
                _NAMES,
                qkv_bias=True,
                window="last",
                hf_defaults=_DEFAULTS | {"num_key_value_heads": 32, "sliding_window": 4096},
            ),
            Family(
                "qwen3",
                "Qwen3ForCausalLM",
                "qwen3",
                _NAMES,
                qk_norm=True,
                window="last",
                hf_defaults=_DEFAULTS | {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096},
            ),
        )
    }
)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of one model: canonical name, its names in the two file formats, its shape.

    `rotary_heads` is the number of heads whose rows (or entries) are laid out in rotary pairs, 0 for most
    tensors.
    """

    name: str
    hf: str
    gguf: str
    shape: tuple[int, ...]
    rotary_heads: int = 0


def stored_tensors(config: ModelConfig) -> Iterator[StoredTensor]:
    """Every tensor a checkpoint of this configuration must hold, layer by layer as the forward needs it."""
    names, tree = FAMILIES[config.family].names, decoder(config)

    def one(part: Linear | Norm, layer: int | None, rotary_heads: int = 0) -> Iterator[StoredTensor]:
        name = part.role if layer is None else layer_name(layer, part.role)
        hf, gguf = (stored.format(i=layer) for stored in names[part.role])
        shape = (part.size,) if isinstance(part, Norm) else (part.rows, part.cols)
        yield StoredTensor(name, hf + ".weight", gguf + ".weight", shape, rotary_heads)
        if isinstance(part, Linear) and part.bias:
            yield StoredTensor(name + ".bias", hf + ".bias", gguf + ".bias", (part.rows,), rotary_heads)

    yield from one(tree.embed, None)
    for i, layer in enumerate(tree.layers):
        attention = layer.attends
        rotary = {attention.q: attention.heads, attention.k: attention.kv_heads}
        parts: tuple[Linear | Norm, ...] = (*layer.norms, *layer.linears)
        for part in parts:
            yield from one(part, i, rotary.get(part, 0) if isinstance(part, Linear) else 0)
    yield from one(tree.final_norm, None)
    if not tree.tied:
        yield from one(tree.head, None)
