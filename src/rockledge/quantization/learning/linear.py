"""A linear that learns in the grid it is stored in: its bands, tables and row scales are an artifact's."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rockledge.formats.bands import GROUP, groups, table_widths
from rockledge.formats.packing import PackedLinear, pack, unpack, unpack_index
from rockledge.quantization.learning.straight_through import real_weights
from rockledge.quantization.rounding.codebook import nearest_codes, nearest_values, values_by_half_unit

# Weights rounded at a time: so few stay in a processor's cache from one operation to the next.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class _Rounded:
    """A matrix rounded: `w8` int8 [N, K], and where weights are within the ends of the grid, bool [N, K]."""

    w8: Tensor
    inside: Tensor


class LearningLinear(nn.Module):
    """Weights fp32 [N, K] and row scales that learn, seen through the nearest entries of the tables that
    `stored` has. Called, it gives the real weights that it stands for.

    It begins with the codes that `stored` has, which error feedback may have chosen instead of the nearest: a
    weight is then moved by as much as its entry differs from the nearest, so that what is left of it to the
    next border is as before. With all weights in the middle of their entries, small steps would change
    nothing; at the border that they came from, the first one would undo what feedback chose.

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
            tables = torch.tensor(stored.tables_of(bits)[:, : 1 << bits])
            self._keep(f"tables_{bits}", tables)
            self._keep(f"values_{bits}", values_by_half_unit(tables))
        self._begin_with(torch.from_numpy(unpack(stored)))

    @torch.no_grad()
    def _begin_with(self, w8: Tensor) -> None:
        """Moves weights to where they are rounded to `w8` int8 [N, K]."""
        scale = self.scale()[:, None]
        moved = self.weight + (w8.float() - self._rounded().w8.float()) * scale
        self.weight.copy_(moved)
        self.weight.copy_(torch.where(self._rounded().w8 == w8, moved, w8 * scale))  # tables are not even

    def forward(self) -> Tensor:
        """The real weights fp32 [N, K], differentiable by `weight` and `log_scale`."""
        rounded = self._rounded()
        return real_weights(self.weight, self.scale(), rounded.w8, rounded.inside)

    def scale(self) -> Tensor:
        """The row scales fp32 [N], above 0."""
        return self.get_buffer("start") * self.log_scale.exp()

    @torch.no_grad()
    def packed(self) -> PackedLinear:
        """As an artifact stores it: the codes of the weights as they are now."""
        tables = {bits: self.get_buffer(f"tables_{bits}") for bits in table_widths(self._bands)}
        scale, index = self.scale(), self.get_buffer("index")
        codes = torch.empty(self.weight.shape, dtype=torch.uint8, device=scale.device)
        for rows, bits in self._parts():
            if bits == 8:
                codes[rows] = _integers(self.weight[rows] / scale[rows, None]).view(torch.uint8)
            else:
                codes[rows] = nearest_codes(self.weight[rows], scale[rows], index[rows], tables[bits])
        bias = None if self.bias is None else self.bias.cpu().numpy()
        by_width = {bits: table.cpu().numpy() for bits, table in tables.items()}
        return pack(
            codes.cpu().numpy(), index.cpu().numpy(), by_width, scale.cpu().numpy(), self._bands, bias
        )

    @torch.no_grad()
    def _rounded(self) -> _Rounded:
        """All rows. Nothing is kept: a fused optimizer changes weights without a sign."""
        scale = self.scale()
        w8 = torch.empty(self.weight.shape, dtype=torch.int8, device=scale.device)
        inside = torch.empty(self.weight.shape, dtype=torch.bool, device=scale.device)
        for rows, bits in self._parts():
            units = self.weight[rows] / scale[rows, None]
            if bits == 8:
                w8[rows], inside[rows] = _integers(units), units.abs() <= 127
                continue
            index = self.get_buffer("index")[rows].int()
            w8[rows] = nearest_values(units, index, self.get_buffer(f"values_{bits}"))
            tables = self.get_buffer(f"tables_{bits}")
            low, high = (
                tables[:, end].float()[index].repeat_interleave(GROUP, dim=1)[:, : units.shape[1]]
                for end in (0, -1)
            )
            inside[rows] = (units >= low) & (units <= high)
        return _Rounded(w8, inside)

    def _parts(self) -> Iterator[tuple[slice, int]]:
        """The rows of a band by `_CHUNK` weights, and their width in bits."""
        step = max(1, _CHUNK // self.weight.shape[1])
        for band in self._bands:
            end = band.start + band.rows
            for first in range(band.start, end, step):
                yield slice(first, min(first + step, end)), band.bits

    def _keep(self, name: str, values: Tensor) -> None:
        """What does not learn, and no checkpoint needs."""
        self.register_buffer(name, values, persistent=False)


def _integers(units: Tensor) -> Tensor:
    """The nearest of -127 .. 127, int8."""
    return units.round().clamp_(-127, 127).to(torch.int8)


def _index(stored: PackedLinear) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The table of every group, uint8 [N, ceil(K/16)]; 0 in bands that have none."""
    index = np.zeros((stored.rows, groups(stored.cols)), np.uint8)
    for band, span in zip(stored.bands, stored.spans(), strict=True):
        if band.bits < 8:
            stream = stored.index[span.index : span.index + span.index_bytes]
            index[band.start : band.start + band.rows] = unpack_index(stream, band.rows, stored.cols)
    return index
