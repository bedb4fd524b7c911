"""The whole decoder once more, as plainly as NumPy allows: what the runtime must compute.

Floats are float64 and only what the format fixes is rounded: activations to their int8 planes, queries, keys
and values to int8 with one fp32 scale a head (the loudest of a key's bias apart), weights of attention to 14
bits of a split's largest, linears through the integer specification.
"""

import numpy as np
import numpy.typing as npt

from rockledge.artifact import Artifact
from rockledge.formats import spec
from rockledge.formats.activations import quantize_activations
from rockledge.formats.hadamard import hadamard
from rockledge.formats.key_bias import split_bias
from rockledge.formats.packing import dequantize
from rockledge.model.config import ModelConfig

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


def _rotary(x: Array, config: ModelConfig, layer: int) -> Array:
    tokens, _, size = x.shape
    if layer in config.unturned:
        return x
    theta, divisors, factor = config.rope_theta, np.array(config.rope_divisors), config.rope_factor
    if config.window_rope_theta and config.windows[layer]:
        theta, divisors, factor = config.window_rope_theta, np.ones_like(divisors), 1.0
    turned = config.rotary_channels or size
    half = turned // 2
    angle = np.arange(tokens)[:, None, None] * (theta ** (-2.0 * np.arange(half) / turned) / divisors)
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    first, second, rest = x[..., :half], x[..., half:turned], x[..., turned:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def _online(artifact: Artifact, place: str, x: Array) -> Array:
    if block := artifact.online.get(place):
        return hadamard(x.astype(np.float32), block).astype(np.float64)
    return x


def _before(artifact: Artifact, layer: int, part: str, x: Array) -> Array:
    """What a branch's first linears read: its norm's gain is in their weights, if no norm comes after."""
    places = artifact.config.branch_norms
    normed = x if places == "after" else _norm(x, artifact.config.norm_eps)
    if places == "both":
        normed = normed * artifact.array(f"layers.{layer}.{part}.norm")
    return _online(artifact, f"{part}.in", normed)


def _after(artifact: Artifact, layer: int, part: str, y: Array) -> Array:
    if artifact.config.branch_norms == "before":
        return y
    return _norm(y, artifact.config.norm_eps) * artifact.array(f"layers.{layer}.{part}.after_norm")


def _capped(x: Array, cap: float) -> Array:
    return cap * np.tanh(x / cap) if cap else x


def _attention(artifact: Artifact, layer: int, x: Array) -> Array:
    c = artifact.config
    tokens, name = len(x), f"layers.{layer}.attn"
    read = _before(artifact, layer, "attn", x)
    q, k, v = (_linear(artifact, f"{name}.{part}", read) for part in "qkv")
    if c.qk_norm and c.qk_norm_whole:
        q = _norm(q, c.norm_eps) * artifact.array(f"{name}.q_norm")
        k = _norm(k, c.norm_eps) * artifact.array(f"{name}.k_norm")
    q, k, v = (part.reshape(tokens, -1, c.head_dim) for part in (q, k, v))
    if c.qk_norm and not c.qk_norm_whole:
        q = _norm(q, c.norm_eps) * artifact.array(f"{name}.q_norm")
        k = _norm(k, c.norm_eps) * artifact.array(f"{name}.k_norm")
    late = np.zeros_like(k)
    bias = artifact.linear(f"{name}.k").bias
    if bias is not None and layer not in c.unturned and not c.qk_norm:
        turning = c.rotary_channels or c.head_dim
        late += split_bias(bias, c.head_dim, turning)[1].reshape(c.kv_heads, c.head_dim)
    turned = _rotary(q, c, layer)
    if c.query_growth:
        far = np.floor(np.arange(tokens) / c.query_growth_length)
        turned = turned * (1 + c.query_growth * np.log1p(far))[:, None, None]
    late, k = (_rotary(part, c, layer) for part in (late, k - late))
    q, k = _int8_heads(turned), _int8_heads(k)
    v = _int8_heads(v)
    out = np.empty_like(q)
    back = np.arange(tokens)[:, None] - np.arange(tokens)
    window = c.windows[layer] if c.windows else 0
    hidden = (back < 0) | ((back >= window) & (window > 0))
    for head in range(c.heads):
        kv = head // (c.heads // c.kv_heads)
        scores = q[:, head] @ k[:, kv].T + turned[:, head] @ late[:, kv].T
        scores = _capped(scores * (c.attention_scale or c.head_dim**-0.5), c.attention_softcap)
        scores[hidden] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = _weighed(weights, v[:, kv]) / weights.sum(axis=1, keepdims=True)
    mixed = _online(artifact, "attn.o", out.reshape(tokens, -1))
    return x + _after(artifact, layer, "attn", _linear(artifact, f"{name}.o", mixed))


def _weighed(weights: Array, values: Array) -> Array:
    """Sums of values [n, d] by weights [rows, n], which are rounded as the format says: in every 512
    positions to 14 bits of the largest, each with the scale of its position's int8 value."""
    scales = np.abs(values).max(axis=1) / 127
    found = np.zeros((len(weights), values.shape[1]))
    for first in range(0, len(values), 512):
        part = slice(first, first + 512)
        scaled = weights[:, part] * scales[part]
        unit = scaled.max(axis=1, keepdims=True) / (128 * 127 + 127)
        unit[unit == 0] = 1
        codes = np.rint(scaled / unit)
        found += codes * unit @ (values[part] / np.maximum(scales[part], 1e-30)[:, None])
    return found


def _feed_forward(artifact: Artifact, layer: int, x: Array) -> Array:
    name = f"layers.{layer}.ffn"
    read = _before(artifact, layer, "ffn", x)
    gate, up = _linear(artifact, f"{name}.gate", read), _linear(artifact, f"{name}.up", read)
    if artifact.config.activation == "silu":
        opened = gate / (1 + np.exp(-gate))
    else:
        opened = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
    hidden = _online(artifact, "ffn.down", opened * up)
    return x + _after(artifact, layer, "ffn", _linear(artifact, f"{name}.down", hidden))


def reference_states(artifact: Artifact, tokens: list[int]) -> Array:
    """Normed states float64 [len(tokens), hidden] of one sequence from its beginning: times the last gain
    and in the plain basis where the head is tied or missing, else as the head reads them.

    The multiplier of branches is in the weights, as the gains before linears are.
    """
    c, rotation = artifact.config, artifact.rotation
    plain = c.branch_norms != "before"  # the stream is not turned, only the stored embedding and head are
    x = dequantize(artifact.linear("embed"))[tokens].astype(np.float64) * c.embedding_scale
    if plain and rotation is not None:
        x = rotation.inverse(x.astype(np.float32)).astype(np.float64)
    for layer in range(c.layers):
        x = _feed_forward(artifact, layer, _attention(artifact, layer, x))
    x = _norm(x, c.norm_eps)
    if rotation is not None and not plain and c.tied:
        x = rotation.inverse(x.astype(np.float32)).astype(np.float64)
    if c.tied or plain:
        x = x * artifact.array("final_norm")
    return x


def reference_logits(artifact: Artifact, tokens: list[int]) -> Array:
    """Logits float64 [len(tokens), vocab] of one sequence from its beginning."""
    c, rotation = artifact.config, artifact.rotation
    x = reference_states(artifact, tokens)
    if rotation is not None and (c.branch_norms != "before" or c.tied):
        x = rotation.forward(x.astype(np.float32)).astype(np.float64)
    logits = _linear(artifact, "embed" if c.tied else "head", x)
    return _capped(logits * c.logit_scale, c.logit_softcap)
