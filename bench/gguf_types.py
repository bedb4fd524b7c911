"""The type that llama.cpp's quantiser gives each matrix of a GGUF file, and so how many bits a step reads.

A file is named after the type of most of its matrices. The head has another, some matrices of a mixture have
more bits, and a matrix whose rows are not whole super-blocks falls back to a type with blocks of 32. That
moves small models most: in Gemma 3 1B "Q6_K" nearly everything is Q8_0, because its rows have 1,152 inputs.
Rules and block sizes: src/llama-quant.cpp (llama_tensor_get_type, tensor_type_fallback) and
ggml/src/ggml-common.h of ggml-org/llama.cpp.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rockledge.board.memory import DecoderShape

TYPE_BITS: Final = {
    "F16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_K": 5.5,
    "Q5_0": 5.5,
    "Q5_1": 6.0,
    "Q4_K": 4.5,
    "Q4_0": 4.5,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.25,
}
"""Bits a weight, scales included."""
SUPER_BLOCK: Final = 256
_IN_SUPER_BLOCKS: Final = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "IQ4_XS": "IQ4_NL"}
"""Types whose blocks are 256 long, and what replaces each where rows are not a multiple of that."""
_MIXTURES: Final = {"Q4_K_M": "Q4_K"}


@dataclass(frozen=True)
class Matrix:
    """[outputs, inputs] of one type, which a step reads once."""

    type: str
    outputs: int
    inputs: int

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs

    @property
    def bytes(self) -> float:
        return self.weights * TYPE_BITS[self.type] / 8


def matrices(shape: DecoderShape, file_type: str) -> Iterator[Matrix]:
    """Those of the layers, then the head. KeyError for a `file_type` that is not known here."""
    base = _MIXTURES.get(file_type, file_type)
    if base not in TYPE_BITS:
        raise KeyError(file_type)
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for layer in range(shape.layers):
        for name, outputs, inputs in (
            ("q", query, shape.hidden),
            ("k", kv, shape.hidden),
            ("v", kv, shape.hidden),
            ("o", shape.hidden, query),
            ("gate", shape.ffn, shape.hidden),
            ("up", shape.ffn, shape.hidden),
            ("down", shape.hidden, shape.ffn),
        ):
            chosen = _of_layer(file_type, base, name, layer, shape)
            yield Matrix(_fitting(chosen, inputs), outputs, inputs)
    head = base if base in ("F16", "Q8_0") else "Q6_K"
    yield Matrix(_fitting(head, shape.hidden), shape.vocab, shape.hidden)


def _of_layer(file_type: str, base: str, name: str, layer: int, shape: DecoderShape) -> str:
    if file_type == "Q4_K_M" and name in ("v", "down") and _more_bits(layer, shape.layers):
        return "Q6_K"
    if file_type == "IQ4_XS":
        first = name == "down" and layer < shape.layers // 8
        grouped = name == "v" and shape.heads >= 4 * shape.kv_heads
        return "Q5_K" if first or grouped else base
    return base


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(chosen: str, inputs: int) -> str:
    return chosen if inputs % SUPER_BLOCK == 0 else _IN_SUPER_BLOCKS.get(chosen, chosen)
