"""A short recovery in closed form: what a branch writes is fitted to the teacher by least squares.

A pruned branch ends in a matrix W whose inputs x are those of the pruned model, on the calibration text. The
change of W that brings what it writes nearest to a target is (sum of w r x^T) (sum of w x x^T + c I)^-1, with
r what is missing and w one over the target's mean square: what counts is the error relative to a token's
stream, which the next norm divides by. The ridge c keeps W where the text says little. There is no step size
and no order of samples; where nothing is missing, nothing changes.

Layer-wise reconstruction after structured pruning is known from ZipLM (arXiv 2302.04089); here the target is
the teacher's stream and not the branch's own output, so that a branch makes up for errors before it, and the
last one before a gap for the layers that are gone.
"""

from math import inf
from typing import Final

import torch
from torch import Tensor

RIDGE: Final = 1.0
"""The ridge over (mean square of the weighted inputs) x (their number): the best one for independent inputs
when as much of what is missing is noise to them as can be explained, however many tokens there are."""


class Refit:
    """Sums over tokens for one matrix [rows, inputs]."""

    def __init__(self, rows: int, inputs: int, device: torch.device | str) -> None:
        self.shape = (rows, inputs)
        self._tokens = 0
        self._moments = torch.zeros(inputs, inputs, device=device, dtype=torch.float64)
        self._missing = torch.zeros(rows, inputs, device=device, dtype=torch.float64)

    def add(self, x: Tensor, missing: Tensor, target: Tensor) -> None:
        """Inputs [..., inputs]; what is missing of the outputs, and what these are part of, [..., rows]."""
        x, missing, target = (each.reshape(-1, each.shape[-1]) for each in (x, missing, target))
        self._tokens += len(x)
        weighted = x / target.square().mean(-1, keepdim=True).clamp_min(1e-12)
        self._moments += weighted.T @ x
        self._missing += missing.T @ weighted

    def change(self) -> Tensor:
        """By how much the matrix changes, fp32 [rows, inputs]; zero where the inputs are, or overflowed."""
        level = float(self._moments.diagonal().mean()) / max(self._tokens, 1)
        if not 0 < level < inf:
            return torch.zeros_like(self._missing, dtype=torch.float32)
        moments = self._moments
        moments.diagonal().add_(RIDGE * level * len(moments))
        factor = torch.linalg.cholesky(moments)
        return torch.cholesky_solve(self._missing.T, factor).T.float()
