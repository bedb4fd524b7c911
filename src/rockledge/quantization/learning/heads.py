"""Attention as the runtime computes it: queries, cached keys and cached values int8, with one scale for each
head of a token; what of a key's bias goes past the cache is not rounded (`formats.key_bias`)."""

from collections.abc import Callable

import torch
from torch import Tensor

from rockledge.formats.key_bias import large_bias_channels
from rockledge.model.block import Attention
from rockledge.quantization.float_model.forward import attention, rotate_pairs
from rockledge.quantization.learning.straight_through import rounded_straight


def large_key_bias(body: Attention, bias: Tensor | None) -> Tensor | None:
    """The part of a key's bias [kv_heads * head_dim] that goes past the cache, zeros elsewhere; None where no
    part does: without a bias, without rotary turns, and where a norm follows."""
    if bias is None or body.rope is None or body.k_norm is not None:
        return None
    squares = bias.detach().float().square().view(-1, body.head_dim).cpu().numpy()
    large = torch.from_numpy(large_bias_channels(squares, body.rope.turned)).to(bias.device)
    return bias * large.view(-1)


def int8_attention(
    body: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    past_cache: Tensor | None,
    positions: Tensor | None,
    rounded: Callable[[Tensor], Tensor] = rounded_straight,
) -> Tensor:
    """`float_model.forward.attention` with heads `rounded`; `past_cache` as from `large_key_bias`."""
    values = rounded(v)
    if past_cache is None:
        return attention(body, rounded(q), rounded(k), values, positions)
    bias = past_cache.view(1, -1, 1, body.head_dim).repeat_interleave(body.heads // body.kv_heads, 1)
    apart = rotate_pairs(bias.expand(len(k), -1, k.shape[2], -1), body.rope, positions)
    # (q', q) times (k', b) is q' k' + q b.
    queries = torch.cat((rounded(q), q.float()), -1)
    keys = torch.cat((rounded(k - apart), apart.float()), -1)
    return attention(body, queries, keys, values, positions)
