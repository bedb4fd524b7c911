"""The order of feed-forward channels: dear ones beside each other, so that a band of rows can be wide or
narrow as one.

Swapping channels of gate and up together with columns of down changes nothing; it is free as long as it
happens before down's Hadamard transform. Bands of the sorted channels are then dealt to the Hadamard blocks
in turn, because a block that held all the loud channels would set every token's rounding step alone.
"""

from collections.abc import Sequence

import torch


def channel_order(costs: torch.Tensor, bands: Sequence[tuple[int, int]], block: int) -> torch.Tensor:
    """Permutation int64 [ffn]: which channel comes first, second, ...

    `costs` [ffn] is what an equal relative error of each channel costs. `bands` are (start, rows) over
    channels. With whole bands in a Hadamard block of `block` channels, the bands, dearest first, go to the
    blocks in turn.
    """
    dearest = torch.argsort(costs, descending=True, stable=True)
    rows = bands[0][1]
    if block % rows or any(count != rows for _, count in bands):
        return dearest
    blocks = len(costs) // block
    ranked = dearest.view(-1, rows)  # [bands, rows]
    dealt = ranked.view(block // rows, blocks, rows).transpose(0, 1)
    return dealt.reshape(-1)
