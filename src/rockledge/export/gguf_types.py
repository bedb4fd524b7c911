"""Types of GGUF tensors, and which of them is nearest to the codes of a matrix.

The gguf package rounds to these; the k-quants need blocks of 256 inputs and search for their scales, which
llama.cpp's own llama-quantize does from an exported f16 file.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError

BLOCK: Final = 32
"""Inputs that share a scale."""

NEAREST: Final = "nearest"

# Bits of a code, without scales, from few to many.
_CODES: Final[Mapping[str, int]] = {"q4_1": 4, "q5_1": 5, "q8_0": 8}
KINDS: Final = (NEAREST, "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_PLAIN: Final = ("f32", "f16", "bf16")


def kind_of(asked: str, bits: float, columns: int) -> str:
    """The type of a matrix with codes of `bits` on average and so many columns: the one that was `asked` for,
    or the smallest whose codes have a bit more, so that rounding again adds less than rounding has cost;
    bf16 where rows are not whole blocks."""
    if asked in _PLAIN:
        return asked
    if columns % BLOCK:
        return "bf16"
    if asked != NEAREST:
        return asked
    return next((kind for kind, code in _CODES.items() if bits + 1 <= code), "q8_0")


def rounded(values: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.uint8]:
    """fp32 [rows, inputs] as bytes [rows, bytes of a row]. UsageError where a value is too large for f16."""
    import gguf

    with np.errstate(over="ignore"):
        data = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind.upper()])
    if kind == "f16" and not np.isfinite(data).all():
        raise UsageError("a weight is too large for f16; export with --type bf16")
    return np.ascontiguousarray(data).view(np.uint8).reshape(values.shape[0], -1)
