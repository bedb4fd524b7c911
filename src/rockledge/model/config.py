"""The numbers that define one model, whatever file they came from.

Everything after the readers (float reference, quantizer, program builder, board model) sees only this.
"""

import math
from dataclasses import dataclass
from typing import Literal

from rockledge.errors import CheckpointError
from rockledge.model.limits import LARGEST, check_heads, check_size

Pooling = Literal["last", "mean"]


@dataclass(frozen=True)
class ModelConfig:
    """One decoder. All sizes are counts of elements.

    The rotary angle of pair i at position p is `p * rope_theta ** (-2 i / n) / rope_divisors[i]`, where n is
    the number of channels of a head that are turned and there are n // 2 divisors. Llama 3.1's scaling,
    linear scaling and GGUF's `rope_freqs` all become divisors; no scaling means all ones. `context` is the
    longest sequence for which results are exact.

    What follows `eos` is what families differ in besides; `model.block` says what each means in a layer. By
    layer, or empty where all are alike: `windows` (0 for none), `unturned` (layers without rotary turns).
    `rotary_channels`: how many of a head are turned, its first ones; 0 for all.
    `rope_factor` multiplies cosines and sines. For contexts longer than `rope_original`, `rope_long_divisors`
    take the place of the others, or, where `rope_dynamic` is not 0, NTK scaling by that factor applies.
    `window_rope_theta`: the base, unscaled, in layers with a window; 0 for the one of the others.
    `attention_scale` 0 means 1 / sqrt(head_dim). `headless`: there is no language head, only embeddings. They
    are made by `pooling`: the final state after the last token, or the mean of those after all tokens.
    """

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    norm_eps: float
    rope_theta: float
    rope_divisors: tuple[float, ...]
    tied: bool
    context: int
    qkv_bias: bool
    qk_norm: bool
    bos: int | None
    eos: tuple[int, ...]
    activation: Literal["silu", "gelu_tanh"] = "silu"
    branch_norms: Literal["before", "after", "both"] = "before"
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm_whole: bool = False
    windows: tuple[int, ...] = ()
    unturned: tuple[int, ...] = ()
    rotary_channels: int = 0
    rope_factor: float = 1.0
    rope_original: int = 0
    rope_long_divisors: tuple[float, ...] = ()
    rope_dynamic: float = 0.0
    window_rope_theta: float = 0.0
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    query_growth: float = 0.0
    query_growth_length: int = 0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    headless: bool = False
    pooling: Pooling = "last"


_LARGEST_FACTOR = 1e30  # far from where float32 overflows

# Numbers that results are multiplied by, and those of which 0 says that there is none.
_FACTORS = ("embedding_scale", "residual_scale", "logit_scale", "rope_factor")
_OPTIONAL = ("attention_scale", "attention_softcap", "logit_softcap", "rope_dynamic", "query_growth")


def check_config(config: ModelConfig) -> ModelConfig:
    """The same configuration; CheckpointError names the first number that cannot describe a model."""
    for name in LARGEST:
        check_size(name, getattr(config, name))
    check_heads(config.heads, config.head_dim)
    if config.heads % config.kv_heads:
        raise CheckpointError(
            f"{config.heads} query heads cannot share {config.kv_heads} key/value heads evenly"
        )
    if not 0 <= config.norm_eps < 1 or not 1 < config.rope_theta < 1e12:
        raise CheckpointError(
            f"norm_eps is {config.norm_eps} and rope_theta {config.rope_theta}, "
            "expected 0 <= norm_eps < 1 < rope_theta < 1e12"
        )
    _check_rope(config)
    _check_layers(config)
    for name in _FACTORS:
        if not 0 < abs(getattr(config, name)) < _LARGEST_FACTOR:
            raise CheckpointError(f"{name} is {getattr(config, name)}, expected a number other than 0")
    for name in _OPTIONAL:
        if not 0 <= getattr(config, name) < _LARGEST_FACTOR:
            raise CheckpointError(f"{name} is {getattr(config, name)}, expected a number from 0 on")
    for token in (*config.eos, *(() if config.bos is None else (config.bos,))):
        if not 0 <= token < config.vocab:
            raise CheckpointError(
                f"special token {token} is outside the vocabulary of {config.vocab} tokens; "
                "use a tokenizer and weights of one model"
            )
    return config


def _check_rope(config: ModelConfig) -> None:
    turned = config.rotary_channels or config.head_dim
    if turned % 2 or not 2 <= turned <= config.head_dim:
        raise CheckpointError(
            f"{turned} channels of a head of {config.head_dim} are turned, expected an even number of them; "
            "the file is damaged, fetch it again"
        )
    if config.window_rope_theta and not 1 < config.window_rope_theta < 1e12:
        raise CheckpointError(
            f"window_rope_theta is {config.window_rope_theta}, expected 1 < window_rope_theta < 1e12"
        )
    if config.query_growth and config.query_growth_length < 1:
        raise CheckpointError(
            f"queries grow by their position, but over {config.query_growth_length} positions, expected a "
            "positive length; give original_max_position_embeddings"
        )
    if config.rope_dynamic and turned == 2:
        raise CheckpointError("dynamic scaling of one rotary pair is not possible, expected more pairs")
    for name in ("rope_divisors", "rope_long_divisors"):
        divisors = getattr(config, name)
        if name == "rope_long_divisors" and not divisors:
            continue
        if len(divisors) != turned // 2 or not all(0 < d < math.inf for d in divisors):
            raise CheckpointError(
                f"{name} has {len(divisors)} values, expected {turned // 2} positive ones, one for each "
                "rotary pair; the file is damaged, fetch it again"
            )


def _check_layers(config: ModelConfig) -> None:
    if config.windows and len(config.windows) != config.layers:
        raise CheckpointError(
            f"{len(config.windows)} windows are given for {config.layers} layers, expected one for each; "
            "the file is damaged, fetch it again"
        )
    if other := [layer for layer in config.unturned if not 0 <= layer < config.layers]:
        raise CheckpointError(
            f"layer {other[0]} is said to have no rotary embedding, expected 0 to {config.layers - 1}; "
            "the file is damaged, fetch it again"
        )
