"""The float forward of every family, one decoder layer at a time: what all errors and prices are measured
against.

Nothing here holds more than one layer's weights, everything is differentiable, and every linear's input
passes through `taps`, so that statistics, fake quantisation and online rotations need no second forward.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rockledge.model.block import Attention, Branch, Decoder, Gated, Group, Linear, Norm, decoder, layer_name
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.rope import Rope, inverse_frequencies
from rockledge.quantization.float_model.logits import finished

Taps = Callable[[str, Tensor], Tensor]
"""Called with a place (`Group.place`, or "head") and the input of the linears there, [batch, tokens, inputs];
returns what they shall see instead."""
OutputTaps = Callable[[str, Tensor], Tensor]
"""The same for outputs: called with a linear's role ("attn.q", ...) and its output, [batch, tokens, outputs]
too."""
Attend = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]
"""Called with an attention and its queries, keys and values as they are multiplied, [batch, heads, tokens,
head_dim] each; returns the mixed values, of the same shape."""


def embed_tokens(checkpoint: Checkpoint, tokens: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Embeddings of int64 [batch, tokens] as float32 [batch, tokens, hidden]."""
    table = torch.from_numpy(checkpoint.tensor("embed"))
    return scaled(F.embedding(tokens.cpu(), table), decoder(checkpoint.config)).to(device)


def scaled(rows: Tensor, tree: Decoder) -> Tensor:
    """Rows of the embedding as they enter the first layer."""
    return rows if tree.embedding_scale == 1 else rows * tree.embedding_scale


def block_weights(checkpoint: Checkpoint, i: int, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The float32 tensors of decoder layer `i`, keyed without "layers.{i}."."""
    prefix = layer_name(i, "")
    return {
        name.removeprefix(prefix): torch.from_numpy(checkpoint.tensor(name)).to(device)
        for name in checkpoint.names()
        if name.startswith(prefix)
    }


def head_weights(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors "final_norm" [hidden] and, where there is one, "head" [vocab, hidden] (tied: the
    embedding), float32."""
    tree = decoder(checkpoint.config)
    tensors = {"final_norm": tree.final_norm.role, **({} if tree.headless else {"head": tree.head.role})}
    return {key: torch.from_numpy(checkpoint.tensor(name)).to(device) for key, name in tensors.items()}


def block_forward(
    weights: Mapping[str, Tensor],
    x: Tensor,
    tree: Decoder,
    i: int,
    taps: Taps | None = None,
    outputs: OutputTaps | None = None,
    *,
    attend: Attend | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Decoder layer `i` over whole sequences [batch, tokens, hidden], causal; same shape out.

    A norm before a body without an entry in `weights` has a gain of one (folded into the linears after it).
    `positions` int64 [batch, tokens]: None for one document from position 0 on; a document begins wherever
    they are 0, and sees nothing of those before it. `attend` takes the place of `attention`.
    """
    run = _run(weights, tree, taps, outputs, attend, positions)
    for branch in tree.layers[i].branches:
        x = run.branch(branch, x)
    return x


def branch_forward(
    weights: Mapping[str, Tensor],
    x: Tensor,
    tree: Decoder,
    branch: Branch,
    taps: Taps | None = None,
    outputs: OutputTaps | None = None,
) -> Tensor:
    """One branch of a layer, as `block_forward` runs both."""
    return _run(weights, tree, taps, outputs).branch(branch, x)


def _run(
    weights: Mapping[str, Tensor],
    tree: Decoder,
    taps: Taps | None,
    outputs: OutputTaps | None,
    attend: Attend | None = None,
    positions: Tensor | None = None,
) -> "_Run":
    attend = attend or partial(attention, positions=positions)
    return _Run(weights, tree.norm_eps, taps or _untouched, outputs or _untouched, attend, positions)


def head_forward(weights: Mapping[str, Tensor], x: Tensor, tree: Decoder, taps: Taps | None = None) -> Tensor:
    """Logits [..., vocab] of the last layer's output [..., hidden], or its norm [..., hidden] where there is
    no head; `weights` as from `head_weights`."""
    x = rms_norm(x, weights.get("final_norm"), tree.norm_eps)
    if tree.headless:
        return x
    return finished(F.linear((taps or _untouched)("head", x), weights["head"]), tree)


def final_logits(checkpoint: Checkpoint, x: Tensor) -> Tensor:
    """What `head_forward` makes of the last layer's output, reading norm and head from the checkpoint."""
    return head_forward(head_weights(checkpoint, x.device), x, decoder(checkpoint.config))


def forward(checkpoint: Checkpoint, tokens: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Float32 logits [batch, tokens, vocab] of int64 tokens [batch, tokens], streaming layer by layer; states
    [batch, tokens, hidden] of a model without a language head."""
    x = embed_tokens(checkpoint, tokens, device)
    for i in range(checkpoint.config.layers):
        x = block_forward(block_weights(checkpoint, i, device), x, decoder(checkpoint.config), i)
    return final_logits(checkpoint, x)


def rms_norm(x: Tensor, gain: Tensor | None, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension, times the gain if there is one."""
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x if gain is None else x * gain


def rotate_pairs(x: Tensor, rope: Rope | None, positions: Tensor | None = None) -> Tensor:
    """Rotary embedding of [batch, heads, tokens, head_dim] at `positions` [batch, tokens], or from position 0
    on: of its first `rope.turned` channels, in pairs half of them apart."""
    if rope is None:
        return x
    cos, sin = _angles(rope, x.shape[-2], _places(positions, x))
    turned, rest = x[..., : rope.turned], x[..., rope.turned :]
    first, second = turned.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)


@dataclass(frozen=True)
class _Run:
    """One layer's weights by role, and what looks on."""

    weights: Mapping[str, Tensor]
    eps: float
    tap: Taps
    out: OutputTaps
    attend: Attend
    positions: Tensor | None

    def branch(self, branch: Branch, x: Tensor) -> Tensor:
        body, inner = branch.body, self._normed(branch.before, x)
        y = self._attention(body, inner) if isinstance(body, Attention) else self._gated(body, inner)
        y = self._normed(branch.after, y)
        return x + (y if branch.multiplier == 1 else y * branch.multiplier)

    def _normed(self, norm: Norm | None, x: Tensor) -> Tensor:
        return x if norm is None else rms_norm(x, self.weights.get(norm.role), self.eps)

    def _linears(self, group: Group, x: Tensor) -> list[Tensor]:
        seen = self.tap(group.place, x)
        return [self._linear(linear, seen) for linear in group.linears]

    def _linear(self, linear: Linear, x: Tensor) -> Tensor:
        role = linear.role
        return self.out(role, F.linear(x, self.weights[role], self.weights.get(role + ".bias")))

    def _gated(self, body: Gated, x: Tensor) -> Tensor:
        reads, last = body.groups
        gate, up = self._linears(reads, x)
        active = F.silu(gate) if body.activation == "silu" else F.gelu(gate, approximate="tanh")
        return self._linears(last, active * up)[0]

    def _attention(self, body: Attention, x: Tensor) -> Tensor:
        reads, last = body.groups
        q, k, v = self._linears(reads, x)
        q, k = self._heads(body, body.q_norm, q), self._heads(body, body.k_norm, k)
        v = self._heads(body, None, v)
        shared = body.heads // body.kv_heads
        k, v = (t.repeat_interleave(shared, 1) for t in (rotate_pairs(k, body.rope, self.positions), v))
        q = _grown(body, rotate_pairs(q, body.rope, self.positions), self.positions)
        mixed = self.attend(body, q, k, v)
        return self._linears(last, mixed.transpose(1, 2).flatten(2))[0]

    def _heads(self, body: Attention, norm: Norm | None, x: Tensor) -> Tensor:
        """[batch, heads, tokens, head_dim] of [batch, tokens, channels], normed over heads or all of them."""
        if norm is not None and norm.over != body.head_dim:
            x, norm = self._normed(norm, x), None
        heads = x.view(*x.shape[:-1], -1, body.head_dim).transpose(1, 2)
        return self._normed(norm, heads)


def attention(body: Attention, q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None = None) -> Tensor:
    """Values [batch, heads, tokens, head_dim] mixed by queries and keys; `positions` as in
    `block_forward`."""
    tokens = q.shape[-2]
    if positions is None and not body.softcap and not 0 < body.window < tokens:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=body.scale)
    place = torch.arange(tokens, device=q.device)
    behind = place[:, None] - place
    visible = (behind >= 0) & (behind < (body.window or tokens))
    if positions is not None:
        document = (positions == 0).cumsum(-1)
        visible = visible & (document[:, None, :, None] == document[:, None, None, :])
    if not body.softcap:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=body.scale)
    scores = body.softcap * torch.tanh(q @ k.transpose(-1, -2) * (body.scale / body.softcap))
    return scores.masked_fill(~visible, -torch.inf).softmax(-1) @ v


def _grown(body: Attention, q: Tensor, positions: Tensor | None) -> Tensor:
    """Queries [batch, heads, tokens, head_dim] as they grow with their position."""
    if not body.growth:
        return q
    place = _places(positions, q).to(q.dtype)
    return q * (1 + body.growth * torch.log1p(torch.floor(place / body.growth_length)))[..., None]


def _places(positions: Tensor | None, x: Tensor) -> Tensor:
    """The positions of [batch, heads, tokens, head_dim], such that they meet its first three axes."""
    return torch.arange(x.shape[-2], device=x.device) if positions is None else positions[:, None]


def _angles(rope: Rope, tokens: int, places: Tensor) -> tuple[Tensor, Tensor]:
    frequency = torch.from_numpy(inverse_frequencies(rope, tokens)).to(places.device)
    angle = places[..., None].float() * frequency
    return angle.cos() * rope.factor, angle.sin() * rope.factor


def _untouched(place: str, x: Tensor) -> Tensor:
    return x
