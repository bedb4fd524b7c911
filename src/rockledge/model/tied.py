"""The rule for the head: whether it is the embedding itself or a separate matrix."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Blocks = Iterable[npt.NDArray[np.generic]]


def head_is_tied(stated_tied: bool, embedding: Blocks, head: Blocks | None) -> bool:
    """Whether the embedding is the head too.

    `embedding` and `head` are the stored values in order, block by block, and read no further than the first
    difference; `head` is None where none is stored. A stored head that differs is used whatever the flag
    says, as in transformers 5 (`tie_weights` in modeling_utils.py) and llama.cpp.
    """
    if head is None:
        return stated_tied
    return stated_tied and all(np.array_equal(a, b) for a, b in zip(embedding, head, strict=True))
