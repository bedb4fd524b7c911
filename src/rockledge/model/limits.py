"""The largest models that the runtime runs. `check_config` enforces these limits whenever a model is opened,
to quantise it or to run it, so that what cannot run is refused before any work.

The native core has the same ones (native/check_program.cpp); tests/native/test_limits.py compares them.
"""

from collections.abc import Mapping
from typing import Final

from rockledge.errors import CheckpointError

MOST_INPUTS: Final = 1 << 17
"""Inputs of a linear: the sum of that many products of int8 pairs still fits int32."""

LARGEST: Final[Mapping[str, int]] = {
    "hidden": MOST_INPUTS,
    "layers": 1 << 10,
    "heads": 1 << 10,
    "kv_heads": 1 << 10,
    "head_dim": 512,
    "ffn": MOST_INPUTS,
    "vocab": 1 << 22,
    "context": 1 << 31,
}
"""Largest value of each size of a `ModelConfig`. Those that nothing in the core limits are far above any
model, and far below what would exhaust memory before a check fails."""


def check_size(name: str, value: int) -> None:
    """CheckpointError unless `value` is from 1 to the largest that the size `name` of `LARGEST` may have."""
    if not 1 <= value <= LARGEST[name]:
        raise CheckpointError(
            f"{name} is {value}, expected 1 to {LARGEST[name]}; the file is damaged, or the model is larger "
            "than Rockledge runs"
        )


def check_heads(heads: int, head_dim: int) -> None:
    """CheckpointError unless the rotary pairs of a head are whole, and all heads together fit one linear."""
    if head_dim % 2:
        raise CheckpointError(f"head_dim is {head_dim}, expected an even number (rotary pairs)")
    if heads * head_dim > MOST_INPUTS:
        raise CheckpointError(
            f"{heads} heads of {head_dim} have {heads * head_dim} values together, expected at most "
            f"{MOST_INPUTS}; the file is damaged, or the model is larger than Rockledge runs"
        )
