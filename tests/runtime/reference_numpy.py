"""The whole decoder once more, as plainly as NumPy allows: what the runtime must compute.

Floats are float64 and only what the format fixes is rounded: activations to their int8 planes, queries, keys
and values to int8 with one fp32 scale a head (the loudest of a key's bias apart), linears through the integer
specification.
"""

import numpy as np
import numpy.typing as npt

from rockledge.artifact import Artifact
from rockledge.formats import spec
from rockledge.formats.activations import quantize_activations
from rockledge.formats.hadamard import hadamard
from rockledge.formats.key_bias import split_bias
from rockledge.formats.packing import dequantize

Array = npt.NDArray[np.float64]


def _norm(x: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)


def _linear(artifact: Artifact, name: str, x: Array) -> Array:
    q, scale = quantize_activations(x.astype(np.float32), artifact.planes(name))
    return spec.linear(q, scale, artifact.linear(name)).astype(np.float64)


def _int8_heads(x: Array) -> Array:
    """What a head reads back: x [T, heads, head_dim] through int8 with one scale per token and head."""
    tokens, heads, size = x.shape
    q, scale = quantize_activations(x.reshape(-1, size).astype(np.float32), 1)
    return (q[:, 0].astype(np.float64) * scale[:, None].astype(np.float64)).reshape(tokens, heads, size)


def _rotary(x: Array, theta: float, divisors: tuple[float, ...]) -> Array:
    tokens, _, size = x.shape
    half = size // 2
    frequencies = theta ** (-2.0 * np.arange(half) / size) / np.array(divisors)
    angle = np.arange(tokens)[:, None, None] * frequencies
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _attention(artifact: Artifact, layer: int, x: Array) -> Array:
    c = artifact.config
    tokens, name = len(x), f"layers.{layer}.attn"
    normed = _norm(x, c.norm_eps)
    q = _linear(artifact, f"{name}.q", normed).reshape(tokens, c.heads, c.head_dim)
    k = _linear(artifact, f"{name}.k", normed).reshape(tokens, c.kv_heads, c.head_dim)
    v = _linear(artifact, f"{name}.v", normed).reshape(tokens, c.kv_heads, c.head_dim)
    if c.qk_norm:
        q = _norm(q, c.norm_eps) * artifact.array(f"{name}.q_norm")
        k = _norm(k, c.norm_eps) * artifact.array(f"{name}.k_norm")
    late = np.zeros_like(k)
    if (bias := artifact.linear(f"{name}.k").bias) is not None:
        late += split_bias(bias, c.head_dim)[1].reshape(c.kv_heads, c.head_dim)
    turned = _rotary(q, c.rope_theta, c.rope_divisors)
    late, k = (_rotary(part, c.rope_theta, c.rope_divisors) for part in (late, k - late))
    q, k = _int8_heads(turned), _int8_heads(k)
    v = _int8_heads(v)
    out = np.empty_like(q)
    for head in range(c.heads):
        kv = head // (c.heads // c.kv_heads)
        scores = (q[:, head] @ k[:, kv].T + turned[:, head] @ late[:, kv].T) / np.sqrt(c.head_dim)
        scores[np.triu_indices(tokens, 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, kv]
    return x + _linear(artifact, f"{name}.o", out.reshape(tokens, -1))


def _feed_forward(artifact: Artifact, layer: int, x: Array) -> Array:
    name = f"layers.{layer}.ffn"
    normed = _norm(x, artifact.config.norm_eps)
    gate, up = _linear(artifact, f"{name}.gate", normed), _linear(artifact, f"{name}.up", normed)
    hidden = gate / (1 + np.exp(-gate)) * up
    if block := artifact.online.get("ffn.down"):
        hidden = hadamard(hidden.astype(np.float32), block).astype(np.float64)
    return x + _linear(artifact, f"{name}.down", hidden)


def reference_logits(artifact: Artifact, tokens: list[int]) -> Array:
    """Logits float64 [len(tokens), vocab] of one sequence from its beginning."""
    c = artifact.config
    x = dequantize(artifact.linear("embed"))[tokens].astype(np.float64)
    for layer in range(c.layers):
        x = _feed_forward(artifact, layer, _attention(artifact, layer, x))
    x = _norm(x, c.norm_eps)
    if c.tied:
        gain = artifact.array("final_norm")
        rotation = artifact.rotation
        if rotation is None:
            x = x * gain
        else:
            x = rotation.forward((rotation.inverse(x.astype(np.float32)) * gain).astype(np.float32))
    return _linear(artifact, "embed" if c.tied else "head", np.asarray(x, np.float64))
