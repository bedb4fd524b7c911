"""The operations of an artifact that round: what can be put back to float, one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rockledge.model.block import Decoder, layer_name

Kind = Literal["weights", "inputs", "cache"]


@dataclass(frozen=True)
class Operation:
    """`weights` of the linear `role`, `inputs` of the linears at the place `role` ("attn.in"), or a layer's
    `cache`: its int8 queries, keys and values. `layer` is None for embedding and head."""

    kind: Kind
    layer: int | None
    role: str

    @property
    def name(self) -> str:
        """Of what it rounds: "layers.3.attn.q", "inputs of layers.3.attn.in"."""
        place = self.role if self.layer is None else layer_name(self.layer, self.role)
        return place if self.kind == "weights" else f"{self.kind} of {place}"


def layer_operations(tree: Decoder, number: int) -> Iterator[Operation]:
    """Those of one layer."""
    layer = tree.layers[number]
    for group in layer.groups:
        yield Operation("inputs", number, group.place)
        for linear in group.linears:
            yield Operation("weights", number, linear.role)
    yield Operation("cache", number, "attn")


def end_operations(tree: Decoder) -> Iterator[Operation]:
    """Those of embedding and head; a tied matrix is one operation, wherever it is used."""
    yield Operation("weights", None, tree.embed.role)
    yield Operation("inputs", None, "head")
    if not tree.tied:
        yield Operation("weights", None, tree.head.role)
