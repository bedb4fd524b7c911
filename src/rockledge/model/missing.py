"""What a decoder that is not supported would need, in terms of `model.block`: known names, and telling keys.

Facts: transformers' modeling files by `model_type`; llama.cpp's src/llama-arch.cpp for names and keys of
GGUF files.
"""

from collections.abc import Mapping
from typing import Any

_EXPERTS = "experts"
_DELTA, _MAMBA, _MAMBA2 = (f"a recurrent body: {kind}" for kind in ("gated delta net", "Mamba", "Mamba 2"))
_RWKV, _LRU = "a recurrent body: RWKV", "a recurrent body: RG-LRU"
_CONVOLUTION = "short convolutions"
_LATENT = "latent attention (keys and values from a shared low-rank state)"
_LAYER_INPUTS = "embeddings that enter every layer"
_MEAN = "norms that subtract the mean"
_PLAIN = "a feed-forward body without a gate"
_PARALLEL = "attention and feed-forward side by side in one branch"
_POSITIONS = "learned positions"
_ALIBI = "scores with a bias by distance (ALiBi)"
_SINKS = "attention sinks"
_TWO_WAY = "attention in both directions"
_ENCODER = "an encoder"
_GATED_ATTENTION = "gates on the output of attention"
_CHOSEN = "attention to chosen positions only"
_NEIGHBOURS = "rotary pairs of neighbours"
_DECLARATION = "a declaration of its family (the block has all of it)"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ONLY_EXPERTS = _names(
    """
    mixtral qwen2_moe qwen2moe qwen3_moe qwen3moe olmoe phimoe dbrx llama4 granitemoe granitemoeshared
    glm4_moe glm4moe ernie4_5_moe ernie4_5-moe flex_olmo bailingmoe bailing_moe minimax_m2 hunyuan-moe dots1
    """
)

# Names as in config.json or general.architecture; GGUF's own spelling stands beside the other's.
_BY_NAME: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("qwen3_next", "qwen3next"), (_DELTA, _GATED_ATTENTION, _EXPERTS)),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen35"), (_DELTA, _GATED_ATTENTION)),
    **dict.fromkeys(("qwen3_5_moe", "qwen3_5_moe_text", "qwen35moe"), (_DELTA, _GATED_ATTENTION, _EXPERTS)),
    **dict.fromkeys(("kimi_linear", "kimi-linear"), (_DELTA, _LATENT, _EXPERTS)),
    "olmo_hybrid": (_DELTA,),
    **dict.fromkeys(("mamba", "falcon_mamba"), (_MAMBA,)),
    "jamba": (_MAMBA, _EXPERTS),
    **dict.fromkeys(("mamba2", "bamba", "falcon_h1", "falcon-h1", "zamba2", "plamo2"), (_MAMBA2,)),
    **dict.fromkeys(("nemotron_h", "granitehybrid"), (_MAMBA2,)),
    **dict.fromkeys(("rwkv", "rwkv6", "rwkv7", "rwkv6qwen2", "arwkv7"), (_RWKV,)),
    "recurrent_gemma": (_LRU,),
    "xlstm": ("a recurrent body: xLSTM",),
    "minimax": ("a recurrent body: lightning attention", _EXPERTS),
    **dict.fromkeys(("lfm2", "lfm2_vl"), (_CONVOLUTION,)),
    **dict.fromkeys(("lfm2_moe", "lfm2moe"), (_CONVOLUTION, _EXPERTS)),
    **dict.fromkeys(_ONLY_EXPERTS, (_EXPERTS,)),
    **dict.fromkeys(("gpt_oss", "gpt-oss"), (_EXPERTS, _SINKS)),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek2", "glm4_moe_lite"), (_LATENT, _EXPERTS)),
    "minicpm3": (_LATENT,),
    **dict.fromkeys(("gemma3n", "gemma3n_text", "gemma4", "gemma4_text"), (_LAYER_INPUTS,)),
    **dict.fromkeys(("gpt2", "opt", "gpt_bigcode", "starcoder"), (_MEAN, _PLAIN, _POSITIONS)),
    **dict.fromkeys(("bloom", "mpt"), (_MEAN, _PLAIN, _ALIBI)),
    **dict.fromkeys(("gpt_neox", "gptneox", "gptj", "falcon", "phi", "phi2"), (_MEAN, _PLAIN, _PARALLEL)),
    "starcoder2": (_MEAN, _PLAIN),
    "nemotron": (_MEAN, _PLAIN),
    **dict.fromkeys(("cohere", "cohere2", "command-r"), (_MEAN, _PARALLEL)),
    **dict.fromkeys(("stablelm", "olmo"), (_MEAN,)),
    "diffllama": ("differential attention",),
    "phi3small": (_MEAN, _CHOSEN),
    "hunyuan_v1_dense": ("norms of q and k after the turns",),
    **dict.fromkeys(("glm", "glm4", "ernie4_5"), (_NEIGHBOURS,)),
    **dict.fromkeys(("gemma", "olmo3", "ministral", "exaone4", "seed_oss"), (_DECLARATION,)),
    **dict.fromkeys(("bert", "modernbert", "nomic_bert", "nomic-bert", "roberta"), (_ENCODER, _TWO_WAY)),
    **dict.fromkeys(("t5", "mt5", "umt5", "t5encoder", "bart", "whisper", "t5gemma"), (_ENCODER,)),
}

# Keys that tell by being there with a value that is not off; in GGUF they follow the architecture's name.
_BY_KEY: Mapping[str, str] = {
    **dict.fromkeys(("linear_num_value_heads", "linear_conv_kernel_dim"), _DELTA),
    **dict.fromkeys(("mamba_d_state", "ssm_cfg", "ssm_state_size"), "a recurrent body: a state space"),
    **dict.fromkeys(("ssm.state_size", "ssm.conv_kernel"), "a recurrent body: a state space"),
    "wkv.head_size": _RWKV,
    **dict.fromkeys(("conv_L_cache", "shortconv.l_cache"), _CONVOLUTION),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "expert_count"), _EXPERTS),
    **dict.fromkeys(("kv_lora_rank", "attention.kv_lora_rank"), _LATENT),
    **dict.fromkeys(("hidden_size_per_layer_input", "embedding_length_per_layer_input"), _LAYER_INPUTS),
    **dict.fromkeys(("index_topk", "attention.indexer.top_k"), _CHOSEN),
    "use_bidirectional_attention": _TWO_WAY,
    "is_encoder_decoder": _ENCODER,
}


def missing(name: object, values: Mapping[str, Any], prefix: str = "") -> str:
    """ ", which needs ..." for a model whose architecture has that name and whose keys, after `prefix`, are
    those of `values`; empty where nothing is known about it."""
    needs = [*_BY_NAME.get(str(name), ())]
    for holder in (values, values.get("text_config")):
        if isinstance(holder, Mapping):
            needs += _BY_NAME.get(str(holder.get("model_type")), ())
            told = [need for key, need in _BY_KEY.items() if _is_on(holder.get(prefix + key))]
            recurrent = any(need.startswith("a recurrent body") for need in needs)
            needs += [need for need in told if not (recurrent and need.startswith("a recurrent body"))]
    needs = list(dict.fromkeys(needs))
    if not needs:
        return ""
    return ", which needs " + (", ".join(needs[:-1]) + " and " if needs[1:] else "") + needs[-1]


def _is_on(value: object) -> bool:
    return value not in (None, False, 0, 1, "", [], {}) or value is True
