"""One block's row scales, moved by a few gradient steps towards what the float block computes.

Codes, indices and tables stay: moving the entries of tables as well came out worse on text that was not
fitted. A row's scale multiplies its output, so the gradient needs no product with the weights' shape. The
rounding of inputs counts as the identity in the backward pass. A token's error counts relative to the
token's own length, so that the massive first tokens do not outweigh all others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi

import torch

from rockledge.model.config import ModelConfig
from rockledge.quantize.reference import Taps, block_forward
from rockledge.quantize.slices import Slices

# Tokens of one gradient step.
STEP_TOKENS = 1024
# How far the first step moves a scale, relative to itself; later ones less, along half a cosine.
_RATE = 1e-3
_MEMORY, _SQUARE_MEMORY, _LEAST_DIVISOR = 0.9, 0.95, 1e-20  # of Adam (arXiv 1412.6980)
_HELD_SHARE = 6  # one in so many sequences is not fitted, but checked with
_LEAST_SQUARE = 1e-20


@dataclass(frozen=True)
class QuantisedBlock:
    """A block as rounded: `weights` fp32 by role, with biases and gains, on the device that computes; of
    these `linears` are the roles whose scales move. `taps` round the inputs of linears and let gradients
    through.
    """

    weights: Mapping[str, torch.Tensor]
    linears: tuple[str, ...]
    config: ModelConfig
    taps: Taps

    def errors(
        self, shares: Mapping[str, torch.Tensor], x: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Squared relative error [S, T] of the outputs for `x` with scales `shares` times their own."""

        def scaled(role: str, y: torch.Tensor) -> torch.Tensor:
            bias = self.weights.get(role + ".bias")
            return y * shares[role] if bias is None else (y - bias) * shares[role] + bias

        device = next(iter(self.weights.values())).device
        target = target.to(device)
        output = block_forward(self.weights, x.to(device), self.config, self.taps, scaled)
        length = target.square().sum(dim=-1).clamp_min(_LEAST_SQUARE)
        return (output - target).square().sum(dim=-1) / length


def refine_block(
    block: QuantisedBlock, x: torch.Tensor, target: torch.Tensor, steps: int, slices: Slices
) -> dict[str, torch.Tensor] | None:
    """By what the row scales of every linear are to be multiplied, fp32 [N] by role; None to leave them.

    `x` fp32 [S, T, hidden] are the inputs that the quantised model gives the block, `target` the outputs that
    the float model has there. The last sixth of the sequences takes no part in the steps: if it does not come
    closer to its target, all stays as it was.
    """
    device = next(iter(block.weights.values())).device
    shares = {
        role: torch.ones(len(block.weights[role]), device=device, requires_grad=True)
        for role in block.linears
    }
    held = max(1, len(x) // _HELD_SHARE)
    fitted = max(1, len(x) - held)
    size = sequences_of_step(x.shape[1])
    part = slices.of(size)
    before = _loss(block, shares, x[-held:], target[-held:], part)
    descent = torch.optim.Adam(list(shares.values()), betas=(_MEMORY, _SQUARE_MEMORY), eps=_LEAST_DIVISOR)
    for step in range(steps):
        chosen = [(step * size + i) % fitted for i in range(size)]
        for inputs, wanted in zip(x[chosen].split(part), target[chosen].split(part), strict=True):
            block.errors(shares, inputs, wanted).sum().backward()
        for group in descent.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + cos(pi * step / steps))
        descent.step()
        descent.zero_grad()
    if not _loss(block, shares, x[-held:], target[-held:], part) < before:
        return None
    return {role: share.detach() for role, share in shares.items()}


def sequences_of_step(tokens: int) -> int:
    """How many sequences of so many tokens a gradient step looks at."""
    return max(1, STEP_TOKENS // tokens)


def sequences_of_refinement(steps: int, tokens: int) -> int:
    """The most sequences of so many tokens that `steps` gradient steps and the check of them can use."""
    fitted = steps * sequences_of_step(tokens)
    return fitted + max(1, fitted // (_HELD_SHARE - 1))


@torch.no_grad()
def _loss(
    block: QuantisedBlock,
    shares: Mapping[str, torch.Tensor],
    x: torch.Tensor,
    target: torch.Tensor,
    part: int,
) -> float:
    """The mean error, `part` sequences at a time."""
    parts = zip(x.split(part), target.split(part), strict=True)
    return sum(float(block.errors(shares, *one).sum()) for one in parts) / x.shape[:-1].numel()
