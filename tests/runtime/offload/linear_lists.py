"""Linears to plan for: those of the named shapes, and random ones."""

from hypothesis import strategies as st

from rockledge.board.tiles import stored_bytes
from rockledge.model.config import ModelConfig
from rockledge.runtime.offload.linears import Linear
from rockledge.synth import SHAPES


def linear(op: int, outputs: int, inputs: int, planes: int = 1, bits: int = 4) -> Linear:
    padded = -(-inputs // 32) * 32
    return Linear(op, outputs, padded, planes, {bits: outputs * inputs}, stored_bytes(bits, outputs, inputs))


def linears_like(name: str, planes: int = 1, bits: int = 4) -> list[Linear]:
    """q|k|v, o, gate|up and down of every layer of a named shape."""
    c: ModelConfig = SHAPES[name]
    query, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    sizes = ((query + 2 * kv, c.hidden), (c.hidden, query), (2 * c.ffn, c.hidden), (c.hidden, c.ffn))
    return [
        linear(10 * layer + number, outputs, inputs, planes, bits)
        for layer in range(c.layers)
        for number, (outputs, inputs) in enumerate(sizes)
    ]


@st.composite
def linear_lists(draw: st.DrawFn) -> list[Linear]:
    """A few kinds of linears, repeated as layers do."""
    kinds = draw(
        st.lists(
            st.tuples(
                st.integers(1, 1500), st.integers(1, 1200), st.integers(1, 2), st.sampled_from((2, 3, 4, 8))
            ),
            min_size=1,
            max_size=3,
        )
    )
    layers = draw(st.integers(1, 6))
    return [linear(op, *kinds[op % len(kinds)]) for op in range(layers * len(kinds))]
