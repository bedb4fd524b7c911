"""The numbers that define one model, whatever file they came from.

Everything after the readers (float reference, quantizer, program builder, board model) sees only this.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """One decoder. All sizes are counts of elements; `rope_divisors` has `head_dim // 2` entries.

    The rotary angle of pair i at position p is `p * rope_theta ** (-2 i / head_dim) / rope_divisors[i]`;
    Llama 3.1's scaling, linear scaling and GGUF's `rope_freqs` all become divisors, none is all ones.
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
