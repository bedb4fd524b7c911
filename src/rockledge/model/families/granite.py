"""Granite 3, Granite 4 where every layer attends, and MiniCPM: Llama with four multipliers.

Facts: transformers' modeling_granite.py and modeling_granitemoehybrid.py, MiniCPM's modeling_minicpm.py on
the Hub, and load_hparams in llama.cpp's src/llama-model.cpp, which divides logits by `logit_scale`.
"""

from rockledge.errors import CheckpointError
from rockledge.model.families.declaration import DEFAULTS, NAMES, Family, Fields
from rockledge.model.families.llama import gguf_biases, hf_biases
from rockledge.model.gguf_values import GgufValues
from rockledge.model.hf_values import HfValues
from rockledge.model.windows import gguf_windows, without_windows


def _multipliers(values: HfValues) -> Fields:
    scale, divisor = _positive(values, "attention_multiplier"), _positive(values, "logits_scaling")
    return {
        "embedding_scale": values.real("embedding_multiplier", 1.0),
        "residual_scale": values.real("residual_multiplier", 1.0),
        "attention_scale": 0.0 if scale == values.head_dim**-0.5 else scale,
        "logit_scale": 1 / divisor,
    }


def _positive(values: HfValues, key: str, default: float | None = 1.0) -> float:
    value = values.real(key, default)
    if value <= 0:
        raise values.wrong(key, "a positive number")
    return value


def _granite_hf(values: HfValues) -> Fields:
    without_windows(values, "GraniteForCausalLM")
    return {**hf_biases(values), **_multipliers(values)}


def _hybrid_hf(values: HfValues) -> Fields:
    types = values.entries("layer_types", str, values.layers)
    types = values.entries("layers_block_type", str, values.layers) if types is None else types
    if types is None or set(types) - {"attention", "full_attention"}:
        raise CheckpointError(
            f"{values.place} has layers that do not attend (layer_types), which needs a recurrent body: "
            "Mamba 2; supported are models with attention in every layer"
        )
    if values.count("num_local_experts", least=0):
        raise CheckpointError(
            f"num_local_experts in {values.place} is {values.get('num_local_experts')}, which needs experts; "
            "supported are models without any (0)"
        )
    values.ignore(*(key for key in values.stored if key.startswith("mamba_")))
    values.ignore("layers_block_type", "num_experts_per_tok", "intermediate_size", "time_step_limit")
    turned = values.get("position_embedding_type") is not None
    if turned:
        values.choice("position_embedding_type", ("rope", "nope"))
        turned = values.get("position_embedding_type") == "rope"
    bias = values.flag("attention_bias")
    return {
        **_multipliers(values),
        "qkv_bias": bias,
        "o_bias": bias,
        "ffn": values.count("shared_intermediate_size"),
        "unturned": () if turned else tuple(range(values.layers)),
    }


_STATE_SPACE = ("conv_kernel", "state_size", "group_count", "inner_size", "time_step_rank")


def _granite_gguf(values: GgufValues) -> Fields:
    scale = values.real("attention.scale", 0.0)
    turned = values.flag("rope.scaling.finetuned", True)  # in llama.cpp, Granite's switch for the turns
    # What llama.cpp's converter writes for every Granite 4, whose dense models have nothing of it.
    values.ignore("expert_shared_feed_forward_length")
    values.ignore(*(f"ssm.{key}" for key in _STATE_SPACE))
    return {
        **gguf_biases(values),
        **_gguf_multipliers(values, 0.0, 0.0, 0.0),
        "windows": gguf_windows(values),
        "attention_scale": 0.0 if abs(scale * values.head_dim**0.5 - 1) < 1e-6 else scale,
        "unturned": () if turned else tuple(range(values.layers)),
    }


def _gguf_multipliers(values: GgufValues, embedding: float, residual: float, divisor: float) -> Fields:
    """Scales with their values where a file has none; 0 means that there is none."""
    return {
        "embedding_scale": values.real("embedding_scale", embedding) or 1.0,
        "residual_scale": values.real("residual_scale", residual) or 1.0,
        "logit_scale": 1 / (values.real("logit_scale", divisor) or 1.0),
    }


def _minicpm_hf(values: HfValues) -> Fields:
    bias = values.flag("attention_bias")
    return {
        "qkv_bias": bias,
        "o_bias": bias,
        "embedding_scale": values.real("scale_emb", 1.0),
        "residual_scale": _positive(values, "scale_depth", None) / values.layers**0.5,
        "logit_scale": _positive(values, "dim_model_base", None) / values.hidden,
    }


def _minicpm_gguf(values: GgufValues) -> Fields:
    # The first files state none of the multipliers, which were those of MiniCPM 2B.
    multipliers = _gguf_multipliers(values, 12.0, 1.4 / values.layers**0.5, values.hidden / 256)
    return {**gguf_biases(values), **multipliers, "windows": gguf_windows(values)}


GRANITE = Family(
    "granite",
    "GraniteForCausalLM",
    "granite",
    from_hf=_granite_hf,
    from_gguf=_granite_gguf,
    hf_defaults={**DEFAULTS, "max_position_embeddings": 2048},
    gguf_interleaved=True,
)
GRANITE_HYBRID = Family(
    "granitemoehybrid",
    "GraniteMoeHybridForCausalLM",
    None,
    {
        **NAMES,
        **dict.fromkeys(("ffn.gate", "ffn.up"), ("model.layers.{i}.shared_mlp.input_linear", "")),
        "ffn.down": ("model.layers.{i}.shared_mlp.output_linear", ""),
    },
    _hybrid_hf,
    hf_defaults={
        **DEFAULTS,
        "max_position_embeddings": 2048,
        "num_local_experts": 8,
        "shared_intermediate_size": 1024,
    },
)
MINICPM = Family(
    "minicpm",
    "MiniCPMForCausalLM",
    "minicpm",
    from_hf=_minicpm_hf,
    from_gguf=_minicpm_gguf,
    hf_defaults={**DEFAULTS, "max_position_embeddings": 2048, "tie_word_embeddings": True},
    gguf_interleaved=True,
)
