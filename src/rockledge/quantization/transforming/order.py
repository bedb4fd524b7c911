"""The order of feed-forward channels: expensive ones beside each other, so that a band of rows can be wide or
narrow as one.

Swapping channels of gate and up together with columns of down changes nothing; it is free as long as it
happens before down's Hadamard transform. Bands of the sorted channels are then dealt to the Hadamard blocks
in turn, because a block that held all the large channels would determine every token's rounding step alone.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rockledge.model.block import Gated
from rockledge.quantization.transforming.hadamard import hadamard

# Rows or columns of second moments transformed at a time.
_PIECE = 1024


def channel_order(costs: torch.Tensor, bands: Sequence[tuple[int, int]], block: int) -> torch.Tensor:
    """Permutation int64 [ffn]: which channel comes first, second, ...

    `costs` [ffn] is what an equal relative error of each channel costs. `bands` are (start, rows) over
    channels. With whole bands in a Hadamard block of `block` channels, the bands, most expensive first, go to
    the blocks in turn; 0 means no Hadamard.
    """
    dearest = torch.argsort(costs, descending=True, stable=True)
    rows = bands[0][1]
    if not block or block % rows or any(count != rows for _, count in bands):
        return dearest
    blocks = len(costs) // block
    ranked = dearest.view(-1, rows)  # [bands, rows]
    dealt = ranked.view(block // rows, blocks, rows).transpose(0, 1)
    return dealt.reshape(-1)


def arranged(
    weights: Mapping[str, torch.Tensor], gated: Gated, order: torch.Tensor, block: int
) -> dict[str, torch.Tensor]:
    """A layer's weights by role with the feed-forward channels in `order`, and down's columns as its online
    Hadamard over `block` wants them. With that Hadamard before down the layer computes what it did."""
    ordered = dict(weights)
    for linear in (gated.gate, gated.up):
        for role in (linear.role, *((linear.role + ".bias",) if linear.bias else ())):
            ordered[role] = weights[role][order].contiguous()
    ordered[gated.down.role] = hadamard(weights[gated.down.role][:, order].contiguous(), block)
    return ordered


def arranged_moments(moments: torch.Tensor, order: torch.Tensor, block: int) -> torch.Tensor:
    """Second moments of the channels in `order` after the Hadamard over `block`, from those before, fp32
    [ffn, ffn]; in pieces, since at 14,336 channels every copy is 0.8 GB.

    Of a diagonal [ffn] comes a diagonal, exact if channels do not correlate: each block's mean.
    """
    if moments.dim() == 1:
        if not block:
            return moments[order]
        return moments[order].view(-1, block).mean(dim=1, keepdim=True).expand(-1, block).reshape(-1)
    turned = torch.empty_like(moments)
    for first in range(0, len(order), _PIECE):
        part = slice(first, first + _PIECE)
        turned[part] = hadamard(moments[order[part]][:, order], block)
    for first in range(0, len(order), _PIECE):
        part = slice(first, first + _PIECE)
        turned[:, part] = hadamard(turned[:, part].T.contiguous(), block).T
    return turned


def store_order(folder: Path, layer: int, order: torch.Tensor) -> None:
    """Keeps a layer's order beside its candidates, whose rows lie in it."""
    partial = folder / f".layers.{layer}.order.partial"
    with partial.open("wb") as file:
        np.save(file, order.cpu().numpy())
    os.replace(partial, _file(folder, layer))


def stored_order(folder: Path, layer: int) -> torch.Tensor:
    """The order that `store_order` kept, int64 [ffn]."""
    return torch.from_numpy(np.load(_file(folder, layer)))


def _file(folder: Path, layer: int) -> Path:
    return folder / f"layers.{layer}.order.npy"
