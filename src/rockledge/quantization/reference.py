"""The float forward of every family, one decoder block at a time: what all errors and prices are measured
against.

Nothing here holds more than one block's weights, everything is differentiable, and every linear's input
passes through `taps`, so that statistics, fake quantisation and online rotations need no second forward.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from rockledge.model.checkpoint import Checkpoint
from rockledge.model.config import ModelConfig
from rockledge.model.rope import inverse_frequencies

Taps = Callable[[str, Tensor], Tensor]
"""Called with a place ("attn.in", "attn.o", "ffn.in", "ffn.down", "head") and the input of the linears there,
[batch, tokens, inputs]; returns what they shall see instead. "attn.in" feeds Q, K and V, "ffn.in" gate and
up."""
OutputTaps = Callable[[str, Tensor], Tensor]
"""The same for outputs: called with a linear's role ("attn.q", ...) and its output, [batch, tokens, outputs]
too."""


def embed_tokens(checkpoint: Checkpoint, tokens: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Embeddings of int64 [batch, tokens] as float32 [batch, tokens, hidden]."""
    table = torch.from_numpy(checkpoint.tensor("embed"))
    return F.embedding(tokens.cpu(), table).to(device)


def block_weights(checkpoint: Checkpoint, i: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The float32 tensors of decoder block `i`, keyed without "layers.{i}."."""
    prefix = f"layers.{i}."
    return {
        name.removeprefix(prefix): torch.from_numpy(checkpoint.tensor(name)).to(device)
        for name in checkpoint.names()
        if name.startswith(prefix)
    }


def head_weights(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors "final_norm" [hidden] and "head" [vocab, hidden] (tied: the embedding), float32."""
    matrix = checkpoint.tensor("embed" if checkpoint.config.tied else "head")
    return {
        "final_norm": torch.from_numpy(checkpoint.tensor("final_norm")).to(device),
        "head": torch.from_numpy(matrix).to(device),
    }


def block_forward(
    weights: Mapping[str, Tensor],
    x: Tensor,
    config: ModelConfig,
    taps: Taps | None = None,
    outputs: OutputTaps | None = None,
) -> Tensor:
    """One decoder block over whole sequences [batch, tokens, hidden] from position 0, causal; same shape out.

    A norm without an entry in `weights` has a gain of one (folded into the linears after it).
    """
    tap, out = taps or _untouched, outputs or _untouched
    inner = tap("attn.in", rms_norm(x, weights.get("attn.norm"), config.norm_eps))
    x = x + _attention(weights, inner, config, tap, out)
    inner = tap("ffn.in", rms_norm(x, weights.get("ffn.norm"), config.norm_eps))
    gate, up = (out(role, F.linear(inner, weights[role])) for role in ("ffn.gate", "ffn.up"))
    return x + out("ffn.down", F.linear(tap("ffn.down", F.silu(gate) * up), weights["ffn.down"]))


def head_forward(
    weights: dict[str, Tensor], x: Tensor, config: ModelConfig, taps: Taps | None = None
) -> Tensor:
    """Logits [..., vocab] of the last block's output [..., hidden]; `weights` as from `head_weights`."""
    x = rms_norm(x, weights.get("final_norm"), config.norm_eps)
    return F.linear((taps or _untouched)("head", x), weights["head"])


def final_logits(checkpoint: Checkpoint, x: Tensor) -> Tensor:
    """Logits [..., vocab] of the last block's output, reading norm and head from the checkpoint."""
    return head_forward(head_weights(checkpoint, x.device), x, checkpoint.config)


def forward(checkpoint: Checkpoint, tokens: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Float32 logits [batch, tokens, vocab] of int64 tokens [batch, tokens], streaming block by block."""
    x = embed_tokens(checkpoint, tokens, device)
    for i in range(checkpoint.config.layers):
        x = block_forward(block_weights(checkpoint, i, device), x, checkpoint.config)
    return final_logits(checkpoint, x)


def rms_norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, times the gain if there is one."""
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x if gain is None else x * gain


def rotate_pairs(x: Tensor, config: ModelConfig) -> Tensor:
    """Rotary embedding of [batch, heads, tokens, head_dim] from position 0; pairs (i, i + head_dim / 2)."""
    cos, sin = _angles(config, x.shape[-2], x.device)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def _attention(
    weights: Mapping[str, Tensor], x: Tensor, config: ModelConfig, tap: Taps, out: OutputTaps
) -> Tensor:
    q, k, v = (
        _heads(out(role, F.linear(x, weights[role], weights.get(role + ".bias"))), config)
        for role in ("attn.q", "attn.k", "attn.v")
    )
    if config.qk_norm:
        q = rms_norm(q, weights["attn.q_norm"], config.norm_eps)
        k = rms_norm(k, weights["attn.k_norm"], config.norm_eps)
    shared = config.heads // config.kv_heads
    k, v = (t.repeat_interleave(shared, 1) for t in (rotate_pairs(k, config), v))
    mixed = F.scaled_dot_product_attention(rotate_pairs(q, config), k, v, is_causal=True)
    return out("attn.o", F.linear(tap("attn.o", mixed.transpose(1, 2).flatten(2)), weights["attn.o"]))


def _heads(x: Tensor, config: ModelConfig) -> Tensor:
    return x.view(*x.shape[:-1], -1, config.head_dim).transpose(1, 2)


def _angles(config: ModelConfig, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    frequency = torch.from_numpy(inverse_frequencies(config)).to(device)
    angle = torch.arange(tokens, device=device, dtype=torch.float32)[:, None] * frequency
    return angle.cos(), angle.sin()


def _untouched(place: str, x: Tensor) -> Tensor:
    return x
