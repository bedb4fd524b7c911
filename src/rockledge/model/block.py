"""What a decoder computes, stated once: a tree of small records that every other part walks.

The float reference, calibration, rounding, prices, the artifact's layout, the program builder and the board's
formulas read from it which linears share an input, which norms stand where, and what a layer attends to; none
of them knows a family. `decoder` makes the tree from the numbers of a `ModelConfig`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rockledge.model.config import ModelConfig
from rockledge.model.rope import Rope, rope_of


@dataclass(frozen=True)
class Linear:
    """One matrix [rows, cols] = [outputs, inputs], with or without a bias [rows].

    `role` is its name inside its layer ("attn.q"), or its whole name outside ("embed"). `banding` says what a
    band of rows may be: one attention head, a block of channels, or the whole matrix.
    """

    role: str
    rows: int
    cols: int
    banding: Literal["head", "block", "whole"]
    bias: bool = False


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm over each `over` neighbours of a row, times a gain [size]."""

    role: str
    size: int
    over: int


@dataclass(frozen=True)
class Group:
    """Linears that share one quantised input [cols]; `place` names that input inside its layer."""

    place: str
    linears: tuple[Linear, ...]

    @property
    def first(self) -> Linear:
        """The linear whose name stands for the group where one number holds for all, such as its planes."""
        return self.linears[0]


@dataclass(frozen=True)
class Attention:
    """Causal attention with grouped queries, scores times `scale`, then `softcap` * tanh(score / softcap) if
    it is not 0.

    `window`: the positions that a query sees, its own the last; 0 for all up to it. Without `rope` nothing is
    turned. Norms of q and k come before the rotary embedding; after it, queries at position p are multiplied
    by 1 + `growth` * ln(1 + floor(p / `growth_length`)).
    """

    q: Linear
    k: Linear
    v: Linear
    out: Linear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int = 0
    softcap: float = 0.0
    growth: float = 0.0
    growth_length: int = 0

    @property
    def groups(self) -> tuple[Group, Group]:
        """Its linears by what they read."""
        return Group("attn.in", (self.q, self.k, self.v)), Group("attn.o", (self.out,))

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms of queries and keys."""
        return tuple(norm for norm in (self.q_norm, self.k_norm) if norm is not None)


@dataclass(frozen=True)
class Gated:
    """down(activation(gate(x)) * up(x))."""

    gate: Linear
    up: Linear
    down: Linear
    activation: Literal["silu", "gelu_tanh"]

    @property
    def groups(self) -> tuple[Group, Group]:
        """Its linears by what they read."""
        return Group("ffn.in", (self.gate, self.up)), Group("ffn.down", (self.down,))

    @property
    def norms(self) -> tuple[Norm, ...]:
        """None."""
        return ()


@dataclass(frozen=True)
class Branch:
    """x + multiplier * after(body(before(x))); a norm that is None is left out."""

    before: Norm | None
    body: Attention | Gated
    after: Norm | None
    multiplier: float

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms before and after the body."""
        return tuple(norm for norm in (self.before, self.after) if norm is not None)

    @property
    def kept_norms(self) -> tuple[Norm, ...]:
        """Those whose gains no linear takes up: none, or with a norm after the body both.

        Where the residual stream is turned, a gain before linears must be folded into their columns. Where it
        is not, it stays with its norm: Gemma's stream has channels of thousands, which the gain evens out,
        and only then is what the linears read fit to be turned and rounded.
        """
        return () if self.after is None else self.norms


@dataclass(frozen=True)
class Layer:
    """A decoder layer: attention, then feed-forward."""

    attention: Branch
    feed_forward: Branch

    @property
    def branches(self) -> tuple[Branch, Branch]:
        """Both, in the order of the forward pass."""
        return self.attention, self.feed_forward

    @property
    def attends(self) -> Attention:
        """The body of the attention branch."""
        assert isinstance(self.attention.body, Attention)
        return self.attention.body

    @property
    def gated(self) -> Gated:
        """The body of the feed-forward branch."""
        assert isinstance(self.feed_forward.body, Gated)
        return self.feed_forward.body

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of linears, in the order of the forward pass."""
        return tuple(group for branch in self.branches for group in branch.body.groups)

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All linears, in the order of the forward pass."""
        return tuple(linear for group in self.groups for linear in group.linears)

    @property
    def ordered(self) -> Group:
        """The group whose input channels may come in any order: gate and up compute one each."""
        return self.gated.groups[1]

    @property
    def inner_norms(self) -> tuple[Norm, ...]:
        """The norms inside bodies."""
        return tuple(norm for branch in self.branches for norm in branch.body.norms)

    @property
    def kept_norms(self) -> tuple[Norm, ...]:
        """The norms whose gains no linear takes up: those of branches, then those inside bodies."""
        of_branches = (norm for branch in self.branches for norm in branch.kept_norms)
        return (*of_branches, *self.inner_norms)

    @property
    def norms(self) -> tuple[Norm, ...]:
        """All norms: those of the branches, then the inner ones."""
        return (*(norm for branch in self.branches for norm in branch.norms), *self.inner_norms)


@dataclass(frozen=True)
class Decoder:
    """A whole model: embedding times `embedding_scale`, layers, norm, head; then logits times `logit_scale`,
    and `logit_softcap` * tanh(logit / logit_softcap) if it is not 0. Norms add `norm_eps` to the mean square.

    `head` is the embedding itself where the two are tied. A `headless` model counts as tied, but nothing
    is multiplied with its head: its result is what the final norm gives.
    """

    embed: Linear
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Linear
    norm_eps: float
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    headless: bool = False

    @property
    def gathered(self) -> bool:
        """Whether the embedding is a table of rows only: no token is multiplied with it."""
        return self.headless or not self.tied

    @property
    def tied(self) -> bool:
        """Whether the embedding is the head too."""
        return self.head is self.embed

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.embed.cols

    @property
    def residual_turns(self) -> bool:
        """Whether a rotation of the residual stream can be folded into the weights.

        A gain after O or down stands between the matrix and the stream and forbids it; the inputs of that
        model's linears are turned at run time instead.
        """
        return all(branch.after is None for layer in self.layers for branch in layer.branches)

    @property
    def keeps_final_gain(self) -> bool:
        """Whether the last norm's gain stays with it, instead of being folded into the head's columns."""
        return self.tied or not self.residual_turns

    @property
    def parameters(self) -> int:
        """Numbers in the checkpoint, a tied matrix once."""
        matrices = sum(linear.rows * (linear.cols + linear.bias) for _, linear in self.linears())
        norms = (norm.size for layer in self.layers for norm in layer.norms)
        return matrices + self.final_norm.size + sum(norms)

    def linears(self) -> Iterator[tuple[str, Linear]]:
        """(full name, linear) of every stored matrix, in the order of the forward pass."""
        yield self.embed.role, self.embed
        for number, layer in enumerate(self.layers):
            for linear in layer.linears:
                yield layer_name(number, linear.role), linear
        if not self.tied:
            yield self.head.role, self.head

    def kept_norms(self) -> Iterator[tuple[str, Norm]]:
        """(full name, norm) of the gains that no linear takes up: in layers as `Branch` says, and the last
        one unless a head of its own takes it up."""
        for number, layer in enumerate(self.layers):
            for norm in layer.kept_norms:
                yield layer_name(number, norm.role), norm
        if self.keeps_final_gain:
            yield self.final_norm.role, self.final_norm


def layer_name(number: int, role: str) -> str:
    """The full name of what has `role` in a layer: "layers.3.attn.q"."""
    return f"layers.{number}.{role}"


@lru_cache(maxsize=64)
def decoder(config: ModelConfig) -> Decoder:
    """The decoder that `config` describes."""
    embed = Linear("embed", config.vocab, config.hidden, "block")
    tied = config.tied or config.headless
    return Decoder(
        embed=embed,
        layers=tuple(_layer(config, number) for number in range(config.layers)),
        final_norm=Norm("final_norm", config.hidden, config.hidden),
        head=embed if tied else Linear("head", config.vocab, config.hidden, "block"),
        norm_eps=config.norm_eps,
        embedding_scale=config.embedding_scale,
        logit_scale=config.logit_scale,
        logit_softcap=config.logit_softcap,
        headless=config.headless,
    )


def _layer(config: ModelConfig, number: int) -> Layer:
    attention, feed_forward = _attention(config, number), _gated(config)
    return Layer(_branch(config, "attn", attention), _branch(config, "ffn", feed_forward))


def _branch(config: ModelConfig, name: str, body: Attention | Gated) -> Branch:
    def norm(role: str, *, there: bool) -> Norm | None:
        return Norm(f"{name}.{role}", config.hidden, config.hidden) if there else None

    return Branch(
        before=norm("norm", there=config.branch_norms != "after"),
        body=body,
        after=norm("after_norm", there=config.branch_norms != "before"),
        multiplier=config.residual_scale,
    )


def _attention(config: ModelConfig, number: int) -> Attention:
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim

    def norm(role: str, width: int) -> Norm | None:
        if not config.qk_norm:
            return None
        size = width if config.qk_norm_whole else config.head_dim
        return Norm(role, size, size)

    def linear(role: str, rows: int) -> Linear:
        return Linear(role, rows, config.hidden, "head", config.qkv_bias)

    return Attention(
        q=linear("attn.q", query),
        k=linear("attn.k", key),
        v=linear("attn.v", key),
        out=Linear("attn.o", config.hidden, query, "whole", config.o_bias),
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        scale=config.attention_scale or config.head_dim**-0.5,
        rope=rope_of(config, number),
        q_norm=norm("attn.q_norm", query),
        k_norm=norm("attn.k_norm", key),
        window=config.windows[number] if config.windows else 0,
        softcap=config.attention_softcap,
        growth=config.query_growth,
        growth_length=config.query_growth_length,
    )


def _gated(config: ModelConfig) -> Gated:
    return Gated(
        gate=Linear("ffn.gate", config.ffn, config.hidden, "block", config.mlp_bias),
        up=Linear("ffn.up", config.ffn, config.hidden, "block", config.mlp_bias),
        down=Linear("ffn.down", config.hidden, config.ffn, "whole", config.mlp_bias),
        activation=config.activation,
    )


@lru_cache(maxsize=64)
def windows(tree: Decoder) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """(window, numbers of the layers that have it), full attention (0) first, then by growing window.

    The layers of an entry share a pool of the key/value cache: the pool's number is the entry's, and the
    layer's number inside the pool is its place among `layers` there.
    """
    layers: dict[int, list[int]] = {}
    for number, layer in enumerate(tree.layers):
        layers.setdefault(layer.attends.window, []).append(number)
    return tuple((window, tuple(layers[window])) for window in sorted(layers))
