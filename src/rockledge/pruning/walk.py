"""Whole sequences through one branch of one layer after another, a few sequences at a time."""

from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from rockledge.model.block import Attention, Branch, Decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.quantization.float_model.forward import (
    OutputTaps,
    Taps,
    branch_forward,
    head_forward,
    head_weights,
)

_TOKENS: Final = 2048  # that go through a branch together
_LOGIT_TOKENS: Final = 512  # whose logits exist at a time


def batches(states: Tensor) -> Iterator[slice]:
    """Slices of the sequences [S, T, ...] that go through a branch together."""
    count = max(1, _TOKENS // states.shape[1])
    return (slice(first, min(first + count, len(states))) for first in range(0, len(states), count))


def through(
    weights: Mapping[str, Tensor],
    states: Tensor,
    tree: Decoder,
    branch: Branch,
    device: torch.device | str,
    taps: Taps | None = None,
    outputs: OutputTaps | None = None,
) -> Tensor:
    """States [S, T, hidden] in main memory after a branch, computed on `device`."""
    found = torch.empty_like(states)
    for part in batches(states):
        found[part] = branch_forward(weights, states[part].to(device), tree, branch, taps, outputs).cpu()
    return found


def writer(branch: Branch) -> str:
    """The role of the linear that a branch ends in."""
    body = branch.body
    return body.out.role if isinstance(body, Attention) else body.down.role


def token_losses(weights: Mapping[str, Tensor], states: Tensor, tokens: Tensor, tree: Decoder) -> Tensor:
    """-log p of every next token in nats, float64 [S, T - 1], of final states [S, T, hidden] of `tokens`
    [S, T]; `weights` as from `head_weights`."""
    device = weights["head"].device
    flat = states[:, :-1].reshape(-1, states.shape[-1])
    wanted = tokens[:, 1:].reshape(-1)
    found = []
    for first in range(0, len(flat), _LOGIT_TOKENS):
        part = slice(first, first + _LOGIT_TOKENS)
        logits = head_forward(weights, flat[part].to(device), tree)
        found.append(torch.nn.functional.cross_entropy(logits, wanted[part].to(device), reduction="none"))
    return torch.cat(found).double().cpu().view(len(states), -1)


def divergence(weights: Mapping[str, Tensor], states: Tensor, from_states: Tensor, tree: Decoder) -> float:
    """KL of what final `states` [S, T, hidden] predict from what `from_states` do, nats a token; one norm and
    head for both, `weights` as from `head_weights`."""
    device, total = weights["head"].device, 0.0
    whole, other = (each.reshape(-1, each.shape[-1]) for each in (from_states, states))
    for first in range(0, len(whole), _LOGIT_TOKENS):
        part = slice(first, first + _LOGIT_TOKENS)
        wanted, found = (
            torch.log_softmax(head_forward(weights, each[part].to(device), tree), dim=-1)
            for each in (whole, other)
        )
        total += float((wanted.exp() * (wanted - found)).sum(dtype=torch.float64))
    return total / len(whole)


def model_losses(
    checkpoint: Checkpoint, states: Tensor, tokens: Tensor, tree: Decoder, device: torch.device | str
) -> Tensor:
    """`token_losses` of a checkpoint's own norm and head."""
    return token_losses(head_weights(checkpoint, device), states, tokens, tree)
