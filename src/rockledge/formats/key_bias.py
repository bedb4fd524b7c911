"""Which part of a key's bias goes past the cache: the loudest rotary pairs of every key/value head.

A cached key is int8 with one scale a token and head, so a channel that is always loud makes the others
coarse. A bias is loud in the same way at every token, and what it adds to a score is known without the token:
turned to position s, the pair (b, c) meets a query's turned pair (x, y) in
(x b + y c) cos(s f) + (y b - x c) sin(s f). The native core adds that in floats (`RL_ATTENTION`), a cosine
and a sine a pair and position, so only few pairs are worth it. An artifact holds the whole bias; this rule
says which part of it the cache sees.
"""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

LOUD_PAIRS = 8
"""Pairs of a key/value head that go past the cache: on Qwen2.5 twice as many gained little (docs/log.md)."""


def loud_channels(loudness: Float32) -> npt.NDArray[np.bool_]:
    """Which channels bool [heads, head_dim] belong to the loudest pairs of their head, by the `loudness` >= 0
    of every channel (a bias squared); pairs (i, i + head_dim / 2), the first of equally loud ones, never
    silent ones."""
    heads, head_dim = loudness.shape
    pairs = loudness.reshape(heads, 2, head_dim // 2).sum(axis=1)
    order = np.argsort(-pairs, axis=1, kind="stable")[:, :LOUD_PAIRS]
    loud = np.zeros(pairs.shape, bool)
    np.put_along_axis(loud, order, True, axis=1)
    return np.tile(loud & (pairs > 0), (1, 2))


def split_bias(bias: Float32, head_dim: int) -> tuple[Float32, Float32]:
    """The bias [kv_heads * head_dim] of K as what keys keep and what goes into scores, zero in turns."""
    heads = bias.reshape(-1, head_dim)
    loud = loud_channels(np.square(heads)).reshape(-1)
    return np.where(loud, np.float32(0), bias), np.where(loud, bias, np.float32(0))
