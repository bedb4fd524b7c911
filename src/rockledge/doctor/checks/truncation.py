"""Weights that were cut off where they should have been rounded: their errors all point one way."""

from collections.abc import Iterator

import torch

from rockledge.doctor.finding import Finding, Requantised
from rockledge.doctor.stored_linear import StoredLinear

ONE_SIDED = 0.8
"""Least shift of errors to one side, over the root mean square of what is left of them: 0 where rounding is
fair; sqrt(3) = 1.7 where an error is spread evenly between nothing and a whole step."""
_ALIKE = 0.5


def one_sided(stored: torch.Tensor, original: torch.Tensor) -> dict[str, float]:
    """By the way in which weights fp32 [N, K] would have been truncated: the part of the errors that is the
    same for all weights of a row, small and large. An error that grows with the weight is one of the row's
    scale, and does not count."""
    unit = original.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-30)
    weights = original / unit
    error = _beside(stored / unit, weights)
    found = {}
    for way, direction in (("toward zero", -weights.sign()), ("down", -torch.ones_like(weights))):
        free = _beside(direction, weights)
        shift = float((error * free).sum() / free.square().sum().clamp_min(1e-30))
        left = float((error - shift * free).square().mean().sqrt())
        found[way] = shift / max(left, 1e-30)
    return {**found, "up": -found["down"]}


def _beside(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What of each row of `x` is not a multiple of the row of `weights`."""
    along = (x * weights).sum(1, keepdim=True) / weights.square().sum(1, keepdim=True).clamp_min(1e-30)
    return x - along * weights


def check_truncation(linear: StoredLinear) -> Iterator[Finding]:
    """Of rows that are like their originals."""
    rows = linear.likeness.correlation > _ALIKE
    if int(rows.sum()) < len(rows) / 2:
        return
    found = one_sided(linear.stored[rows], linear.original[rows])
    way, share = max(found.items(), key=lambda item: item[1])
    if share > ONE_SIDED:
        yield Finding(
            check="truncation",
            place=linear.name,
            severity="alarm",
            cause=f"its weights were truncated ({way}) where they should have been rounded: the errors "
            f"lean to one side by {share:.1f} of their spread, rounding leaves about 0",
            mend=f"quantise {linear.name} again from the reference, rounding to the nearest",
            change=Requantised((linear.name,)),
            details={"way": way, "one_sided": share},
        )
