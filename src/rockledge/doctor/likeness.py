"""How alike two matrices are, row by row: what a stored matrix is compared with its float original by."""

from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-30


@dataclass(frozen=True)
class Likeness:
    """Of every row fp32 [N]: the `gain` by which the stored row is the original (least squares), and the
    `correlation` of the two (cosine)."""

    gain: Tensor
    correlation: Tensor

    @property
    def typical(self) -> float:
        """The median correlation, whatever its sign: a row may be like its original, and turned round."""
        return float(self.correlation.abs().median())


def likeness(stored: Tensor, original: Tensor) -> Likeness:
    """Of `stored` and `original`, fp32 [N, K] each. Rows that are zero in both are alike; what is not finite
    is not."""
    dot = (stored * original).sum(-1)
    ours, theirs = stored.square().sum(-1), original.square().sum(-1)
    both_zero = (ours < _TINY) & (theirs < _TINY)
    gain = torch.where(both_zero, torch.ones_like(dot), dot / theirs.clamp_min(_TINY))
    cosine = dot / (ours.sqrt() * theirs.sqrt()).clamp_min(_TINY)
    return Likeness(gain, torch.where(both_zero, torch.ones_like(cosine), cosine).nan_to_num(0.0))


def noise(stored: Tensor, original: Tensor) -> float:
    """Energy of the error as a share of the original's."""
    return float((stored - original).square().sum() / original.square().sum().clamp_min(_TINY))
