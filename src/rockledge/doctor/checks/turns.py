"""A matrix that was not turned as what it meets is: a missing rotation, or one too many.

A stored matrix that is not like its original is compared with the original that lacks one of its turns, or
has one more.
"""

from collections.abc import Iterator

import torch

from rockledge.doctor.basis import ALIKE
from rockledge.doctor.finding import Finding, Requantised
from rockledge.doctor.likeness import likeness
from rockledge.doctor.stored_linear import StoredLinear
from rockledge.formats.hadamard import FFN_BLOCK_LIMIT, power_of_two_block
from rockledge.quantization.transforming.hadamard import hadamard, rotate, rotate_inverse

_WORDS = {
    "stream": "the rotation of the residual stream",
    "heads": "the Hadamard within heads",
    "input": "the Hadamard that the runtime applies to its input",
}
_SIDE = {"cols": "what it reads", "rows": "what it writes"}


def check_turns(linear: StoredLinear) -> Iterator[Finding]:
    """Where a matrix is unlike its original: which turn is missing, if one explains it."""
    if linear.likeness.typical > ALIKE:
        return
    for said, original in _variants(linear):
        if likeness(linear.stored, original).typical > ALIKE:
            yield _finding(linear, said)
            return


def _finding(linear: StoredLinear, cause: str) -> Finding:
    return Finding(
        check="turns",
        place=linear.name,
        severity="alarm",
        cause=cause,
        mend=f"quantise {linear.name} again from the reference",
        change=Requantised((linear.name,)),
        details={"correlation": linear.likeness.typical},
    )


def _variants(linear: StoredLinear) -> Iterator[tuple[str, torch.Tensor]]:
    """Sentences and the original as each has it."""
    for fold in linear.folds:
        if fold.kind not in _WORDS:
            continue
        # Every turn is orthogonal, and those of one side follow each other: the last is undone first.
        yield (
            f"a missing rotation: it was stored without {_WORDS[fold.kind]} ({_SIDE[fold.side]})",
            _turned(linear, linear.original, fold.kind, fold.side, fold.size, inverse=True),
        )
    block = power_of_two_block(linear.packed.cols, FFN_BLOCK_LIMIT)
    if not any(fold.kind == "input" for fold in linear.folds) and block > 1:
        yield (
            "it was stored for an input that a Hadamard turns, which the runtime does not apply there",
            hadamard(linear.original.contiguous(), block),
        )
    for side in ("cols", "rows"):
        if linear.rotation is not None and linear.rotation.width == linear.original.shape[side == "cols"]:
            yield (
                f"it was rotated where nothing else is ({_SIDE[side]})",
                _turned(linear, linear.original, "stream", side, 0, inverse=False),
            )


def _turned(
    linear: StoredLinear, x: torch.Tensor, kind: str, side: str, size: int, *, inverse: bool
) -> torch.Tensor:
    if side == "rows":
        return _turned(linear, x.T.contiguous(), kind, "cols", size, inverse=inverse).T.contiguous()
    if kind == "stream":
        return rotate_inverse(x, linear.rotation) if inverse else rotate(x, linear.rotation)
    return hadamard(x.contiguous(), size)
