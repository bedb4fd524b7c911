"""The numbers that define one model, whatever file they came from.

Everything after the readers (float reference, quantizer, program builder, board model) sees only this.
"""

import math
from dataclasses import dataclass

from rockledge.errors import CheckpointError
from rockledge.model.limits import LARGEST, check_heads, check_size


@dataclass(frozen=True)
class ModelConfig:
    """One decoder. All sizes are counts of elements; `rope_divisors` has `head_dim // 2` entries.

    The rotary angle of pair i at position p is `p * rope_theta ** (-2 i / head_dim) / rope_divisors[i]`;
    Llama 3.1's scaling, linear scaling and GGUF's `rope_freqs` all become divisors; no scaling means all
    ones.

    `context` is the longest sequence for which results are exact: a model with sliding-window attention is
    cut to its window, because attention here always sees every earlier position.
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
    if len(config.rope_divisors) != config.head_dim // 2 or not all(
        0 < d < math.inf for d in config.rope_divisors
    ):
        raise CheckpointError(
            f"rope_divisors has {len(config.rope_divisors)} values, expected "
            f"{config.head_dim // 2} positive ones, one for each rotary pair"
        )
    for token in (*config.eos, *(() if config.bos is None else (config.bos,))):
        if not 0 <= token < config.vocab:
            raise CheckpointError(
                f"special token {token} is outside the vocabulary of {config.vocab} tokens; "
                "use a tokenizer and weights of one model"
            )
    return config
