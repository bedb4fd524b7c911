"""Decoder families as frozen declarations: which tensors they have, what they are called, how they connect.

The float reference, the quantizer and the program builder are written once and read these tables; a new
family is one more entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from rockledge.model.config import ModelConfig

Size = Literal["vocab", "hidden", "query", "kv", "ffn", "head_dim"]


@dataclass(frozen=True)
class Linear:
    """One matrix [rows, cols] = [outputs, inputs] and how it may be transformed.

    `hf` and `gguf` are the stored names without ".weight", with `{i}` for the layer. `banding` says what a
    band of rows may be: one attention head, a block of channels, or the whole matrix. `norm` is the role of
    the norm whose gain may be folded into the columns. `residual` says whether the input side or the output
    side carries the residual stream (a rotation of it multiplies columns or rows); the embedding's rows are
    residual vectors, so its columns rotate. `hadamard` is the other rotation it takes part in: "head_rows"
    and "head_cols" transform within each head (V's outputs and O's inputs undo each other), "online" columns
    meet an input that the runtime transforms.
    """

    role: str
    hf: str
    gguf: str
    rows: Size
    cols: Size
    banding: Literal["head", "block", "whole"]
    norm: str | None = None
    residual: Literal["cols", "rows"] = "cols"
    hadamard: Literal["head_rows", "head_cols", "online"] | None = None
    bias: bool = False


@dataclass(frozen=True)
class Norm:
    """One root-mean-square norm's gain, [size]; stored names as in `Linear`."""

    role: str
    hf: str
    gguf: str
    size: Size


@dataclass(frozen=True)
class Family:
    """One architecture. `hf_defaults` are the values a Hugging Face `config.json` may leave out.

    `gguf` is None where llama.cpp stores the family under another architecture's name. `gguf_interleaved`:
    GGUF stores the rows of Q and K so that rotary pairs are neighbours. `qkv_bias`: Q, K and V have biases;
    `qk_norm`: queries and keys are normed per head before the rotary embedding. `window`: which layers attend
    to a sliding window where the configuration has one and no `layer_types`: none; all; or, if
    `use_sliding_window` says so, those from `max_window_layers` on (transformers' modeling files).
    """

    name: str
    hf_architecture: str
    gguf: str | None
    gguf_interleaved: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    window: Literal["none", "all", "last"] = "none"
    hf_defaults: Mapping[str, Any] = field(default_factory=dict)
    linears: tuple[Linear, ...] = ()
    norms: tuple[Norm, ...] = ()


_ATTENTION, _FFN = "model.layers.{i}.self_attn.", "model.layers.{i}.mlp."

_LINEARS = (
    Linear("embed", "model.embed_tokens", "token_embd", "vocab", "hidden", "block"),
    Linear(
        "attn.q", _ATTENTION + "q_proj", "blk.{i}.attn_q", "query", "hidden", "head", "attn.norm", bias=True
    ),
    Linear("attn.k", _ATTENTION + "k_proj", "blk.{i}.attn_k", "kv", "hidden", "head", "attn.norm", bias=True),
    Linear(
        "attn.v",
        _ATTENTION + "v_proj",
        "blk.{i}.attn_v",
        "kv",
        "hidden",
        "head",
        "attn.norm",
        bias=True,
        hadamard="head_rows",
    ),
    Linear(
        "attn.o",
        _ATTENTION + "o_proj",
        "blk.{i}.attn_output",
        "hidden",
        "query",
        "whole",
        residual="rows",
        hadamard="head_cols",
    ),
    Linear("ffn.gate", _FFN + "gate_proj", "blk.{i}.ffn_gate", "ffn", "hidden", "block", "ffn.norm"),
    Linear("ffn.up", _FFN + "up_proj", "blk.{i}.ffn_up", "ffn", "hidden", "block", "ffn.norm"),
    Linear(
        "ffn.down",
        _FFN + "down_proj",
        "blk.{i}.ffn_down",
        "hidden",
        "ffn",
        "whole",
        residual="rows",
        hadamard="online",
    ),
    Linear("head", "lm_head", "output", "vocab", "hidden", "block", "final_norm"),
)
_NORMS = (
    Norm("attn.norm", "model.layers.{i}.input_layernorm", "blk.{i}.attn_norm", "hidden"),
    Norm("ffn.norm", "model.layers.{i}.post_attention_layernorm", "blk.{i}.ffn_norm", "hidden"),
    Norm("final_norm", "model.norm", "output_norm", "hidden"),
)
_QK_NORMS = (
    Norm("attn.q_norm", _ATTENTION + "q_norm", "blk.{i}.attn_q_norm", "head_dim"),
    Norm("attn.k_norm", _ATTENTION + "k_norm", "blk.{i}.attn_k_norm", "head_dim"),
)

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
                gguf_interleaved=True,
                linears=_LINEARS,
                norms=_NORMS,
                hf_defaults=_DEFAULTS | {"max_position_embeddings": 2048},
            ),
            Family(
                "mistral",
                "MistralForCausalLM",
                None,
                window="all",
                linears=_LINEARS,
                norms=_NORMS,
                hf_defaults=_DEFAULTS
                | {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
            ),
            Family(
                "qwen2",
                "Qwen2ForCausalLM",
                "qwen2",
                qkv_bias=True,
                window="last",
                linears=_LINEARS,
                norms=_NORMS,
                hf_defaults=_DEFAULTS | {"num_key_value_heads": 32, "sliding_window": 4096},
            ),
            Family(
                "qwen3",
                "Qwen3ForCausalLM",
                "qwen3",
                qk_norm=True,
                window="last",
                linears=_LINEARS,
                norms=_NORMS + _QK_NORMS,
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


def size(config: ModelConfig, symbol: Size) -> int:
    """The number that a symbolic size stands for in this model."""
    return {
        "vocab": config.vocab,
        "hidden": config.hidden,
        "query": config.heads * config.head_dim,
        "kv": config.kv_heads * config.head_dim,
        "ffn": config.ffn,
        "head_dim": config.head_dim,
    }[symbol]


def stored_tensors(config: ModelConfig) -> Iterator[StoredTensor]:
    """Every tensor a checkpoint of this configuration must hold, layer by layer as the forward needs it."""
    family = FAMILIES[config.family]
    rotary = {"attn.q": config.heads, "attn.k": config.kv_heads}

    def one(part: Linear | Norm, i: int | None) -> Iterator[StoredTensor]:
        name = part.role if i is None else f"layers.{i}.{part.role}"
        hf, gguf = part.hf.format(i=i), part.gguf.format(i=i)
        if isinstance(part, Norm):
            yield StoredTensor(name, hf + ".weight", gguf + ".weight", (size(config, part.size),))
            return
        rows, heads = size(config, part.rows), rotary.get(part.role, 0)
        yield StoredTensor(name, hf + ".weight", gguf + ".weight", (rows, size(config, part.cols)), heads)
        if part.bias and config.qkv_bias:
            yield StoredTensor(name + ".bias", hf + ".bias", gguf + ".bias", (rows,), heads)

    parts: list[Linear | Norm] = [*family.norms, *family.linears]
    yield from (t for p in parts if p.role == "embed" for t in one(p, None))
    for i in range(config.layers):
        yield from (t for p in parts if "{i}" in p.hf for t in one(p, i))
    yield from (
        t
        for p in parts
        if p.role == "final_norm" or (p.role == "head" and not config.tied)
        for t in one(p, None)
    )
