"""A linear that learns in the grid it is stored in: its bands, tables and row scales are an artifact's."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rockledge.formats.bands import groups, table_widths
from rockledge.formats.packing import PackedLinear, pack, unpack_index
from rockledge.quantization.learning.straight_through import real_weights
from rockledge.quantization.rounding.codebook import decode, nearest_codes

# Rows rounded at a time: bounds the temporaries of an embedding.
_ROWS = 4096


@dataclass(frozen=True)
class _Rounded:
    """Some rows rounded: `codes` uint8 as they are stored, `w8` int8, and where weights are not past the ends
    of the grid, bool."""

    codes: Tensor
    w8: Tensor
    inside: Tensor


class LearningLinear(nn.Module):
    """Weights fp32 [N, K] and row scales that learn, seen through the nearest entries of the tables that
    `stored` has. Called, it gives the real weights that it stands for.

    Widths, tables, and which table a group of weights has, stay as `stored` has them. A scale is learnt as
    the logarithm of its share of the one it began with: it stays positive, and a step changes it by a share
    that does not depend on its size.
    """

    def __init__(self, weights: Tensor, stored: PackedLinear) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights.detach().clone())
        self.log_scale = nn.Parameter(torch.zeros(stored.rows))
        self.bias = None if stored.bias is None else nn.Parameter(torch.tensor(stored.bias))
        self._bands = stored.bands
        self._keep("start", torch.tensor(stored.scale))
        self._keep("index", torch.from_numpy(_index(stored)))
        for bits in table_widths(stored.bands):
            self._keep(f"tables_{bits}", torch.tensor(stored.tables_of(bits)[:, : 1 << bits]))

    def forward(self) -> Tensor:
        """The real weights fp32 [N, K], differentiable by `weight` and `log_scale`."""
        parts = self._rounded()
        w8, inside = torch.cat([p.w8 for p in parts]), torch.cat([p.inside for p in parts])
        return real_weights(self.weight, self.scale(), w8, inside)

    def scale(self) -> Tensor:
        """The row scales fp32 [N], above 0."""
        return self.get_buffer("start") * self.log_scale.exp()

    @torch.no_grad()
    def packed(self) -> PackedLinear:
        """As an artifact stores it: the codes of the weights as they are now."""
        codes = torch.cat([part.codes for part in self._rounded()]).cpu().numpy()
        tables = {bits: self.get_buffer(f"tables_{bits}").cpu().numpy() for bits in table_widths(self._bands)}
        bias = None if self.bias is None else self.bias.cpu().numpy()
        index, scale = self.get_buffer("index").cpu().numpy(), self.scale().cpu().numpy()
        return pack(codes, index, tables, scale, self._bands, bias)

    @torch.no_grad()
    def _rounded(self) -> list[_Rounded]:
        """All rows, a part of one width at a time. Nothing is kept: a fused optimizer changes weights without
        a sign."""
        scale, found = self.scale(), []
        for band in self._bands:
            end = band.start + band.rows
            for first in range(band.start, end, _ROWS):
                rows = slice(first, min(first + _ROWS, end))
                found.append(self._round(rows, scale[rows], band.bits))
        return found

    def _round(self, rows: slice, scale: Tensor, bits: int) -> _Rounded:
        units = self.weight[rows] / scale[:, None]
        if bits == 8:
            w8 = units.round().clamp_(-127, 127).to(torch.int8)
            return _Rounded(w8.view(torch.uint8), w8, units.abs() <= 127)
        index, tables = self.get_buffer("index")[rows], self.get_buffer(f"tables_{bits}")
        codes = nearest_codes(self.weight[rows], scale, index, tables)
        w8 = decode(index, codes, tables)
        below, above = (codes == 0) & (units < w8), (codes == tables.shape[1] - 1) & (units > w8)
        return _Rounded(codes, w8, ~(below | above))

    def _keep(self, name: str, values: Tensor) -> None:
        """What does not learn, and no checkpoint needs."""
        self.register_buffer(name, values, persistent=False)


def _index(stored: PackedLinear) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The table of every group, uint8 [N, ceil(K/16)]; 0 in bands that have none."""
    index = np.zeros((stored.rows, groups(stored.cols)), np.uint8)
    for band, span in zip(stored.bands, stored.spans(), strict=True):
        if band.bits < 8:
            stream = stored.index[span.index : span.index + span.index_bytes]
            index[band.start : band.start + band.rows] = unpack_index(stream, band.rows, stored.cols)
    return index
