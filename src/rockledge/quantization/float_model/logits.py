"""From the head's products to logits, with a scale and a soft cap, and how changes pass through them."""

import torch

from rockledge.model.block import Decoder


def finished(products: torch.Tensor, tree: Decoder) -> torch.Tensor:
    """Logits of the head's products, of any shape."""
    if tree.logit_scale != 1:
        products = products * tree.logit_scale
    cap = tree.logit_softcap
    return cap * torch.tanh(products / cap) if cap else products


def slope(logits: torch.Tensor, tree: Decoder) -> torch.Tensor | float:
    """By how much logits change with the products, at these `logits`."""
    cap = tree.logit_softcap
    return tree.logit_scale * (1 - (logits / cap).square()) if cap else tree.logit_scale


def changed(logits: torch.Tensor, delta: torch.Tensor, tree: Decoder) -> torch.Tensor:
    """By how much `logits` change when `delta` is added to the products, however little: no difference of
    nearly equal numbers, since tanh(a + d) - tanh(a) = tanh(d) (1 - tanh(a) tanh(a + d))."""
    if tree.logit_scale != 1:
        delta = delta * tree.logit_scale
    if not (cap := tree.logit_softcap):
        return delta
    at, by = logits / cap, torch.tanh(delta / cap)
    after = (at + by) / (1 + at * by)
    return cap * by * (1 - at * after)
