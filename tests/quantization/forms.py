"""Decoders of every form that the tree can say, small and random, as transformers has them: their weights
under canonical names, and the configuration written out by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from rockledge.model.config import ModelConfig

LAYERS, HEAD = 4, 16
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": HEAD, "vocab_size": 80, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "rms_norm_eps": 1e-6,
    "attn_implementation": "eager",
}  # fmt: skip
PLAIN = ModelConfig(
    "llama", hidden=64, layers=LAYERS, heads=4, kv_heads=2, head_dim=HEAD, ffn=96, vocab=80, norm_eps=1e-6,
    rope_theta=10000.0, rope_divisors=(1.0,) * (HEAD // 2), tied=False, context=256, qkv_bias=False,
    qk_norm=False, bos=1, eos=(2,),
)  # fmt: skip
KINDS = ["sliding_attention", "full_attention"] * (LAYERS // 2)
GEMMA = {
    "activation": "gelu_tanh", "branch_norms": "both", "windows": (8, 0) * (LAYERS // 2), "tied": True,
    "attention_scale": 20**-0.5, "embedding_scale": 8.0,
}  # fmt: skip
SHORT, LONG = [1.0, 1.5, 2.0, 3.0], [1.2, 2.0, 4.0, 9.0]

# Class in transformers, its own settings, and what they are to us.
FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma2": (
        "Gemma2",
        {"query_pre_attn_scalar": 20, "sliding_window": 8, "layer_types": KINDS,
         "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {**GEMMA, "attention_softcap": 2.0, "logit_softcap": 3.0},
    ),
    "gemma3": (
        "Gemma3",
        {"query_pre_attn_scalar": 20, "sliding_window": 8, "layer_types": KINDS,
         "rope_parameters": {
             "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
             "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}}},
        {**GEMMA, "qk_norm": True, "rope_theta": 1e6, "rope_divisors": (4.0,) * (HEAD // 2),
         "window_rope_theta": 100.0},
    ),
    "olmo2": ("Olmo2", {}, {"branch_norms": "after", "qk_norm": True, "qk_norm_whole": True}),
    "phi3": (
        "Phi3",
        {"partial_rotary_factor": 0.5, "original_max_position_embeddings": 16, "sliding_window": 12,
         "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": SHORT,
                             "long_factor": LONG, "original_max_position_embeddings": 16,
                             "partial_rotary_factor": 0.5}},
        {"rotary_channels": 8, "rope_divisors": tuple(SHORT), "rope_long_divisors": tuple(LONG),
         "rope_original": 16, "rope_factor": (1 + np.log(256 / 16) / np.log(16)) ** 0.5,
         "windows": (12,) * LAYERS},
    ),
    "smollm3": (
        "SmolLM3", {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": False},
        {"unturned": (1, 3), "tied": True, "rope_theta": 2000000.0},
    ),
    "granite": (
        "Granite",
        {"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1,
         "logits_scaling": 8.0},
        {"embedding_scale": 12.0, "residual_scale": 0.22, "attention_scale": 0.1, "logit_scale": 1 / 8},
    ),
    "llama-biases": (
        "Llama", {"attention_bias": True, "mlp_bias": True},
        {"qkv_bias": True, "o_bias": True, "mlp_bias": True},
    ),
    "llama-dynamic": (
        "Llama", {"max_position_embeddings": 16,
                  "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0,
                                      "original_max_position_embeddings": 16}},
        {"rope_dynamic": 4.0, "rope_original": 16},
    ),
    "ministral3": (
        "Ministral3",
        {"sliding_window": None,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "llama_4_scaling_beta": 0.5,
                             "original_max_position_embeddings": 16}},
        {"query_growth": 0.5, "query_growth_length": 16},
    ),
}  # fmt: skip

_LINEARS = {
    "self_attn.q_proj": "attn.q", "self_attn.k_proj": "attn.k", "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o", "mlp.gate_proj": "ffn.gate", "mlp.up_proj": "ffn.up",
    "mlp.down_proj": "ffn.down", "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm",
    "input_layernorm": "attn.norm", "pre_feedforward_layernorm": "ffn.norm",
    "post_feedforward_layernorm": "ffn.after_norm",
}  # fmt: skip
_ENDS = {"model.embed_tokens": "embed", "model.norm": "final_norm", "lm_head": "head"}


@dataclass(frozen=True)
class Held:
    """A checkpoint in memory."""

    config: ModelConfig
    tensors: Mapping[str, npt.NDArray[np.float32]]
    path: Path = Path("held")
    stored: str = "in memory, float32"
    notes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        return self.tensors[name].copy()

    def files(self) -> dict[str, bytes]:
        return {}


def form(name: str) -> tuple[Held, Any]:
    """The checkpoint of `FORMS[name]` and the transformers model that it was taken from."""
    torch.manual_seed(7)
    family, own, ours = FORMS[name]
    kind = "Gemma3Text" if family == "Gemma3" else family
    settings = {**SIZES, "tie_word_embeddings": ours.get("tied", False), **own}
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for key, values in model.named_parameters():
            gains = values.dim() == 1 and not key.endswith("bias")
            centre = 1.0 if gains and not family.startswith("Gemma") else 0.0
            values.normal_(centre, 0.3 if values.dim() == 1 else 0.15)
    taken = replace(PLAIN, **ours)
    return Held(taken, dict(_canonical(model, taken, family.startswith("Gemma")))), model


def _canonical(
    model: Any, config: ModelConfig, offset: bool
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    widths = config.heads * HEAD, config.kv_heads * HEAD
    after = "attn.after_norm" if config.branch_norms != "before" else "ffn.norm"
    for key, tensor in model.state_dict().items():
        stem, kind = key.rsplit(".", 1)
        values = tensor.numpy() + (1.0 if offset and tensor.dim() == 1 else 0.0)
        values = np.ascontiguousarray(values, np.float32)
        suffix = ".bias" if kind == "bias" else ""
        if stem in _ENDS:
            if not (stem == "lm_head" and config.tied):
                yield _ENDS[stem], values
            continue
        _, _, layer, part = stem.split(".", 3)
        prefix = f"layers.{layer}."
        if part == "self_attn.qkv_proj":
            cuts = np.split(values, [widths[0], sum(widths)])
            yield from zip([prefix + role for role in ("attn.q", "attn.k", "attn.v")], cuts, strict=True)
        elif part == "mlp.gate_up_proj":
            yield from zip([prefix + "ffn.gate", prefix + "ffn.up"], np.split(values, 2), strict=True)
        else:
            yield prefix + (after if part == "post_attention_layernorm" else _LINEARS[part]) + suffix, values
