"""Roundings whose gradients pass straight through (Bengio et al., arXiv 1308.3432).

Forward is what is stored and what the runtime does; backward takes a rounded number for the number it was
made from.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rockledge.quantization.reporting.fakequant import rounded_inputs

# Weights handled at a time: so few stay in a processor's cache from one operation to the next.
_CHUNK = 1 << 18


def rounded_straight(x: Tensor, planes: int = 1) -> Tensor:
    """Activations [..., K] rounded as `formats.activations` rounds them, fp32 [..., K]; gradients pass whole.

    Nothing is cut off: the largest of a row is the end of its range.
    """
    result: Tensor = _Rounded.apply(x.float(), planes)  # type: ignore[no-untyped-call]
    return result


def real_weights(weights: Tensor, scale: Tensor, w8: Tensor, inside: Tensor) -> Tensor:
    """scale[n] * w8[n, k], fp32 [N, K], of `weights` fp32 [N, K], `scale` fp32 [N] and what they were rounded
    to, int8 [N, K].

    A weight has the gradient of what became of it where `inside`, bool [N, K]: where it is not past the last
    entry of its table. A scale has that of w8 with the weight held still, as in LSQ (Esser et al., arXiv
    1902.08153): w8 - weight / scale inside, w8 elsewhere.
    """
    result: Tensor = _Grid.apply(weights, scale, w8, inside)  # type: ignore[no-untyped-call]
    return result


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor, planes: int) -> Tensor:
        return rounded_inputs(x, planes)

    @staticmethod
    @once_differentiable
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Grid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, scale: Tensor, w8: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(weights, scale, w8, inside)
        return w8.float() * scale[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights, scale, w8, inside = ctx.saved_tensors
        of_weights, of_scale = torch.empty_like(gradient), torch.empty_like(scale)
        step = max(1, _CHUNK // weights.shape[1])
        for first in range(0, len(weights), step):
            rows = slice(first, first + step)
            torch.mul(gradient[rows], inside[rows], out=of_weights[rows])
            shares = w8[rows] - inside[rows] * (weights[rows] / scale[rows, None])
            of_scale[rows] = (gradient[rows] * shares).sum(dim=1)
        return of_weights, of_scale, None, None
