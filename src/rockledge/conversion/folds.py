"""Which matrix is changed, on which side and by what, so that the model computes the same and rounds better:
a list of data, made from the decoder, that any road of conversion executes.

Following QuaRot (arXiv 2404.00456): gains of norms are folded into the linears after them, one orthogonal Q
turns the residual stream, a Hadamard transform each head's values, and block Hadamards meet inputs that the
runtime transforms. Where a norm stands after O or down, Q cannot pass it: the stream stays as it is, and the
inputs of the linears that read it are transformed at run time too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from rockledge.formats.hadamard import FFN_BLOCK_LIMIT, power_of_two_block
from rockledge.model.block import Decoder, Layer, Linear


@dataclass(frozen=True)
class Fold:
    """One change of the matrix (or gain) `role`, within its layer.

    `side`: "cols" changes what it reads, "rows" what it writes, with its bias. `kind`: "gain" multiplies by
    the norm `gain`'s, "multiplier" by `factor`; "stream" turns by Q; "heads" and "input" transform every
    `size` neighbours by Hadamard, "input" because the runtime does it to what the columns meet.
    """

    role: str
    side: Literal["rows", "cols"]
    kind: Literal["gain", "stream", "heads", "input", "multiplier"]
    size: int = 0
    gain: str = ""
    factor: float = 1.0


@dataclass(frozen=True)
class Turns:
    """What of a decoder is turned: the residual stream or else the inputs that read it, and heads, if
    `stream`; the input of down if `down`."""

    tree: Decoder
    stream: bool
    down: bool

    @property
    def folds_stream(self) -> bool:
        """Whether Q is folded into the matrices at both ends of the residual stream."""
        return self.stream and self.tree.residual_turns

    @property
    def online(self) -> Mapping[str, int]:
        """Blocks of the Hadamards that the runtime applies to inputs, by place."""
        layer = self.tree.layers[0]
        groups = [layer.ordered] if self.down else []
        if self.stream and not self.tree.residual_turns:
            groups += [branch.body.groups[0] for branch in layer.branches]
        return {group.place: power_of_two_block(group.first.cols, FFN_BLOCK_LIMIT) for group in groups}

    def layer(self, number: int) -> Iterator[Fold]:
        """The folds of one layer, in the order in which they are done."""
        layer = self.tree.layers[number]
        for branch in layer.branches:
            reads, last = branch.body.groups
            for linear in reads.linears:
                if branch.before is not None and branch.before not in branch.kept_norms:
                    yield Fold(linear.role, "cols", "gain", gain=branch.before.role)
                if self.folds_stream:
                    yield Fold(linear.role, "cols", "stream")
            written = last.first.role
            if self.folds_stream:
                yield Fold(written, "rows", "stream")
            if branch.multiplier != 1:
                scaled = written if branch.after is None else branch.after.role
                yield Fold(scaled, "rows", "multiplier", factor=branch.multiplier)
        if self.stream:
            yield from _heads(layer)
        for group in layer.groups:
            if block := self.online.get(group.place):
                for linear in group.linears:
                    yield Fold(linear.role, "cols", "input", block)

    def ends(self, linear: Linear) -> Iterator[Fold]:
        """The folds of the embedding or of the head: both always have rows in the basis of Q."""
        if linear is self.tree.head and not self.tree.keeps_final_gain:
            yield Fold(linear.role, "cols", "gain", gain=self.tree.final_norm.role)
        if self.stream:
            yield Fold(linear.role, "cols", "stream")


def _heads(layer: Layer) -> Iterator[Fold]:
    """V's outputs and O's inputs, over the largest power of two that divides a head: they undo each other."""
    attention = layer.attends
    size = power_of_two_block(attention.head_dim)
    yield Fold(attention.v.role, "rows", "heads", size)
    yield Fold(attention.out.role, "cols", "heads", size)


def folded(tree: Decoder) -> Decoder:
    """The decoder that is left to compute: multipliers are in weights, folded gains are those that the
    weights lack."""
    layers = tuple(
        Layer(replace(layer.attention, multiplier=1.0), replace(layer.feed_forward, multiplier=1.0))
        for layer in tree.layers
    )
    return replace(tree, layers=layers)
