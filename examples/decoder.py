"""The whole decoder in NumPy, to be read in one sitting: python examples/decoder.py CHECKPOINT [TEXT]

It walks the same tree (`rockledge.model.block`) as the rest of the project, in float64 and without a cache,
quantisation or speed: every position looks at all the positions before it again. What the quantised model
rounds is said in docs/formats.md; what it computes is here.
"""

import sys

import numpy as np
import numpy.typing as npt

from rockledge.model.block import Attention, Branch, Gated, Linear, Norm, decoder, layer_name
from rockledge.model.checkpoint import Checkpoint, open_checkpoint
from rockledge.model.rope import Rope, inverse_frequencies
from rockledge.model.tokenizer import Tokenizer

Array = npt.NDArray[np.float64]


class NumpyDecoder:
    """A checkpoint as a function from token ids to logits."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tree = decoder(checkpoint.config)

    def logits(self, tokens: list[int]) -> Array:
        """Logits [tokens, vocab]: row i says what follows the tokens up to i."""
        tree = self.tree
        x = self.weight("embed")[tokens] * tree.embedding_scale
        for number, layer in enumerate(tree.layers):
            for branch in layer.branches:
                x = x + branch.multiplier * self.branch(x, number, branch)
        y = self.norm(x, tree.final_norm.role, tree.final_norm) @ self.weight(tree.head.role).T
        return soft_capped(y * tree.logit_scale, tree.logit_softcap)

    def branch(self, x: Array, number: int, branch: Branch) -> Array:
        """Norm, body, norm: one of the two parts of a layer. x is [tokens, hidden], and so is the result."""
        if branch.before is not None:
            x = self.norm(x, layer_name(number, branch.before.role), branch.before)
        if isinstance(branch.body, Attention):
            y = self.attention(x, number, branch.body)
        else:
            y = self.gated(x, number, branch.body)
        if branch.after is not None:
            y = self.norm(y, layer_name(number, branch.after.role), branch.after)
        return y

    def gated(self, x: Array, number: int, body: Gated) -> Array:
        """The feed-forward: half of the widened channels decide how much of the other half passes."""
        gate, up = (self.linear(x, number, linear) for linear in (body.gate, body.up))
        return self.linear(ACTIVATIONS[body.activation](gate) * up, number, body.down)

    def attention(self, x: Array, number: int, body: Attention) -> Array:
        """Every position asks (q) what the positions that it sees offer (k), and takes their values (v)."""
        tokens = len(x)
        q, k, v = (self.linear(x, number, linear) for linear in (body.q, body.k, body.v))
        if body.q_norm is not None and body.k_norm is not None:
            q = self.norm(q, layer_name(number, body.q_norm.role), body.q_norm)
            k = self.norm(k, layer_name(number, body.k_norm.role), body.k_norm)
        q, k, v = (part.reshape(tokens, -1, body.head_dim) for part in (q, k, v))  # [tokens, heads, channels]
        if body.rope is not None:
            q, k = rotated(q, body.rope), rotated(k, body.rope)
        if body.growth:
            far = np.floor(np.arange(tokens) / body.growth_length)
            q = q * (1 + body.growth * np.log1p(far))[:, None, None]
        shared = body.heads // body.kv_heads  # so many query heads share a key/value head
        k, v = np.repeat(k, shared, axis=1), np.repeat(v, shared, axis=1)
        scores = soft_capped(np.einsum("qhc,khc->hqk", q, k) * body.scale, body.softcap)
        scores = np.where(visible(tokens, body.window), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hqk,khc->qhc", weights, v)
        return self.linear(mixed.reshape(tokens, -1), number, body.out)

    def norm(self, x: Array, name: str, norm: Norm) -> Array:
        """Root-mean-square norm over each `norm.over` neighbours, times the gain."""
        parts = x.reshape(len(x), -1, norm.over)
        normed: Array = parts / np.sqrt((parts * parts).mean(axis=-1, keepdims=True) + self.tree.norm_eps)
        scaled: Array = normed.reshape(len(x), -1, norm.size) * self.weight(name)
        return scaled.reshape(x.shape)

    def linear(self, x: Array, number: int, linear: Linear) -> Array:
        """x W^T, plus the bias if there is one."""
        name = layer_name(number, linear.role)
        y = x @ self.weight(name).T
        return y + self.weight(f"{name}.bias") if linear.bias else y

    def weight(self, name: str) -> Array:
        """A stored tensor, read afresh at every use."""
        return self.checkpoint.tensor(name).astype(np.float64)


def visible(tokens: int, window: int) -> npt.NDArray[np.bool_]:
    """[query, key]: whether a query sees a key: not after it, and within the window if there is one."""
    back = np.arange(tokens)[:, None] - np.arange(tokens)
    return (back >= 0) & ((back < window) | (window == 0))


def rotated(x: Array, rope: Rope) -> Array:
    """Rotary position embedding of [tokens, heads, channels]: pairs half of the turned channels apart."""
    half = rope.turned // 2
    angle = np.arange(len(x))[:, None, None] * inverse_frequencies(rope, len(x)).astype(np.float64)
    cos, sin = rope.factor * np.cos(angle), rope.factor * np.sin(angle)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def soft_capped(x: Array, cap: float) -> Array:
    """Squeezes x into -cap .. cap; a cap of 0 leaves it."""
    capped: Array = cap * np.tanh(x / cap) if cap else x
    return capped


def silu(x: Array) -> Array:
    """x times its logistic function."""
    y: Array = x / (1 + np.exp(-x))
    return y


def gelu_tanh(x: Array) -> Array:
    """x times the normal distribution function, by its usual approximation with tanh."""
    y: Array = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y


ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh}


def main(path: str, text: str) -> None:
    """Continues a text by eight tokens, always the most probable one."""
    checkpoint = open_checkpoint(path)
    tokenizer = Tokenizer.from_files(checkpoint.files())
    model, tokens = NumpyDecoder(checkpoint), tokenizer.encode(text, bos=True)
    for _ in range(8):
        tokens.append(int(model.logits(tokens)[-1].argmax()))
    print(tokenizer.decode(tokens))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "The capital of France is")
