"""Which part of a key's bias goes past the cache: the largest rotary pairs of every key/value head.

A cached key is int8 with one scale a token and head, so a channel that is always large makes the others
coarse. A bias is equally large at every token, and what it adds to a score is known without the token:
rotated to position s, the pair (b, c) and a query's rotated pair (x, y) give
(x b + y c) cos(s f) + (y b - x c) sin(s f). The native core adds that in floats (`RL_ATTENTION`), a cosine
and a sine a pair and position, so only few pairs are worth it. An artifact holds the whole bias; this rule
decides which part of it the cache contains.
"""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

LARGE_PAIRS = 8
"""Pairs of a key/value head that go past the cache: on Qwen2.5 twice as many gained little (docs/log.md)."""


def large_bias_channels(squares: Float32, turned: int | None = None) -> npt.NDArray[np.bool_]:
    """Which channels bool [heads, head_dim] belong to the largest pairs of their head, by the `squares` >= 0
    of every channel's bias; pairs (i, i + turned / 2) of the first `turned` channels (None: all), the first
    of equally large ones, never zeros."""
    heads, head_dim = squares.shape
    turned = head_dim if turned is None else turned
    pairs = squares[:, :turned].reshape(heads, 2, turned // 2).sum(axis=1)
    order = np.argsort(-pairs, axis=1, kind="stable")[:, :LARGE_PAIRS]
    large = np.zeros(pairs.shape, bool)
    np.put_along_axis(large, order, True, axis=1)
    still = np.zeros((heads, head_dim - turned), bool)
    return np.concatenate([large & (pairs > 0), large & (pairs > 0), still], axis=1)


def split_bias(bias: Float32, head_dim: int, turned: int | None = None) -> tuple[Float32, Float32]:
    """The bias [kv_heads * head_dim] of K as what keys keep and what goes into scores, of which the first
    `turned` channels of a head turn (None: all).

    Each is zero where the other is not.
    """
    heads = bias.reshape(-1, head_dim)
    large = large_bias_channels(np.square(heads), turned).reshape(-1)
    return np.where(large, np.float32(0), bias), np.where(large, bias, np.float32(0))
