"""What a family declares: its names in both formats, and how its numbers and tensors are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_values import HfValues

Fields = dict[str, Any]
"""Fields of `ModelConfig` by name."""

_ATTENTION, _FFN, _BLOCK = "model.layers.{i}.self_attn.", "model.layers.{i}.mlp.", "blk.{i}."

NAMES: Mapping[str, tuple[str, str]] = {
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
"""Llama's names by role, without ".weight", in Hugging Face and GGUF files; `{i}` is the layer."""

# Left-out values are those of the transformers configuration classes; None means "derived from the others".
DEFAULTS: Mapping[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
    "hidden_act": "silu",
}
"""What Llama-like families assume where a `config.json` says nothing."""


def nothing(_: object) -> Fields:
    """No field besides those that every family has."""
    return {}


@dataclass(frozen=True)
class Family:
    """One architecture; `name` is its `model_type` in a `config.json`.

    `gguf` is None where llama.cpp stores the family under another architecture's name. `names`: as `NAMES`;
    roles of a layer with the same stored name are its rows, one below the other, in the order of the forward
    pass. `from_hf` and `from_gguf` give the fields in which a model differs from a plain one: sizes, context,
    special tokens and, unless they are among those fields, the rotary embedding are read for all alike. A key
    that neither asks for is refused, or named in a note.

    `hf_defaults` are the values a `config.json` may leave out. `hf_gain_offset` is added to the gains of
    norms in Hugging Face files. `gguf_interleaved`: GGUF stores the rows of Q and K so that rotary pairs are
    neighbours. `multimodal`: (model_type, architecture) of checkpoints that hold such a model as their text
    part, described by `text_config`.
    """

    name: str
    hf_architecture: str
    gguf: str | None
    names: Mapping[str, tuple[str, str]] = field(default_factory=lambda: NAMES)
    from_hf: Callable[[HfValues], Fields] = nothing
    from_gguf: Callable[[GgufValues], Fields] = nothing
    hf_defaults: Mapping[str, Any] = field(default_factory=lambda: DEFAULTS)
    hf_gain_offset: float = 0.0
    gguf_interleaved: bool = False
    multimodal: tuple[str, str] | None = None
