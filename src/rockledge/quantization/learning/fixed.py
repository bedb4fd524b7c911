"""A linear whose codes stay and whose row scales and biases learn: end-to-end tuning of scales, with which
EfficientQAT ends (Chen et al., arXiv 2407.11062)."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from rockledge.formats.packing import PackedLinear, unpack


class FixedLinear(nn.Module):
    """The codes of `stored`, int8 [N, K], times row scales fp32 [N] that learn where `learns` says so.
    Called, it gives the real weights that it stands for.

    A scale is learnt as the logarithm of its share of the one it began with. Its gradient is that of all its
    row, which is thousands of weights: it can be told from few tokens, where that of a code cannot
    (docs/log.md).
    """

    def __init__(self, stored: PackedLinear, *, learns: bool) -> None:
        super().__init__()
        self._stored = stored
        self.log_scale = nn.Parameter(torch.zeros(stored.rows), requires_grad=learns)
        self.bias = None if stored.bias is None else nn.Parameter(torch.tensor(stored.bias))
        self.register_buffer("start", torch.tensor(stored.scale), persistent=False)
        self.register_buffer("w8", torch.from_numpy(unpack(stored)), persistent=False)

    def forward(self) -> Tensor:
        """The real weights fp32 [N, K], differentiable by `log_scale`."""
        return self.get_buffer("w8").float() * self.scale()[:, None]

    def scale(self) -> Tensor:
        """The row scales fp32 [N], above 0."""
        return self.get_buffer("start") * self.log_scale.exp()

    @torch.no_grad()
    def packed(self) -> PackedLinear:
        """As an artifact stores it."""
        bias = None if self.bias is None else self.bias.cpu().numpy()
        return replace(self._stored, scale=self.scale().cpu().numpy(), bias=bias)
