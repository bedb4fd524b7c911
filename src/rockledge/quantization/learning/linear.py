"""A linear that learns in the grid it is stored in: its bands, tables and row scales are an artifact's."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rockledge.formats.bands import groups, table_widths
from rockledge.formats.packing import PackedLinear, pack
from rockledge.quantization.learning.straight_through import real_weights
from rockledge.quantization.rounding.codebook import decode, encode

# Rows rounded at a time: bounds the temporaries of an embedding.
_ROWS = 4096


@dataclass(frozen=True)
class _Rounded:
    """What weights [N, K] are rounded to: `w8` int8, and where they are not past the ends of the grid."""

    w8: Tensor
    inside: Tensor


class LearningLinear(nn.Module):
    """Weights fp32 [N, K] and row scales that learn, seen through the nearest entries of the tables that
    `stored` has, at its widths. Called, it gives the real weights that it stands for.

    A scale is learnt as the logarithm of its share of the one it began with: it stays positive, and a step
    changes it by a share that does not depend on its size.
    """

    def __init__(self, weights: Tensor, stored: PackedLinear) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights.detach().clone())
        self.log_scale = nn.Parameter(torch.zeros(stored.rows))
        self.bias = None if stored.bias is None else nn.Parameter(torch.tensor(stored.bias))
        self._bands = stored.bands
        self._start: Tensor
        self.register_buffer("_start", torch.tensor(stored.scale), persistent=False)
        for bits in table_widths(stored.bands):
            tables = torch.tensor(stored.tables_of(bits)[:, : 1 << bits])
            self.register_buffer(_tables(bits), tables, persistent=False)
        self._of: tuple[object, ...] = ()
        self._rounded: _Rounded | None = None

    def forward(self) -> Tensor:
        """The real weights fp32 [N, K], differentiable by `weight` and `log_scale`."""
        rounded = self._current()
        return real_weights(self.weight, self.scale(), rounded.w8, rounded.inside)

    def scale(self) -> Tensor:
        """The row scales fp32 [N], above 0."""
        return self._start * self.log_scale.exp()

    def w8(self) -> Tensor:
        """What the weights are rounded to now, int8 [N, K]."""
        return self._current().w8

    @torch.no_grad()
    def packed(self) -> PackedLinear:
        """As an artifact stores it: the codes of the weights as they are now."""
        rows, cols = self.weight.shape
        codes = np.zeros((rows, cols), np.uint8)
        index = np.zeros((rows, groups(cols)), np.uint8)
        scale, tables = self.scale(), {}
        for part, bits in self._parts():
            if bits == 8:
                codes[part] = self._integers(part, scale).w8.view(torch.uint8).cpu().numpy()
                continue
            chosen, found = encode(self.weight[part], scale[part], self._tables_of(bits))
            index[part], codes[part] = chosen.cpu().numpy(), found.cpu().numpy()
            tables[bits] = self._tables_of(bits).cpu().numpy()
        bias = None if self.bias is None else self.bias.cpu().numpy()
        return pack(codes, index, tables, scale.cpu().numpy(), self._bands, bias)

    @torch.no_grad()
    def _current(self) -> _Rounded:
        """The rounding of the weights as they are: done once a step, however many batches a step has."""
        of = tuple((p._version, p.data_ptr(), p.device) for p in (self.weight, self.log_scale))
        if self._rounded is None or of != self._of:
            scale = self.scale()
            parts = [
                self._integers(part, scale) if bits == 8 else self._in_tables(part, scale, bits)
                for part, bits in self._parts()
            ]
            self._rounded = _Rounded(torch.cat([p.w8 for p in parts]), torch.cat([p.inside for p in parts]))
            self._of = of
        return self._rounded

    def _parts(self) -> list[tuple[slice, int]]:
        """Rows of one width each, in order, with the width."""
        found = []
        for band in self._bands:
            end = band.start + band.rows
            for first in range(band.start, end, _ROWS):
                found.append((slice(first, min(first + _ROWS, end)), band.bits))
        return found

    def _integers(self, part: slice, scale: Tensor) -> _Rounded:
        units = self.weight[part] / scale[part, None]
        return _Rounded(units.round().clamp_(-127, 127).to(torch.int8), units.abs() <= 127)

    def _in_tables(self, part: slice, scale: Tensor, bits: int) -> _Rounded:
        weights, tables = self.weight[part], self._tables_of(bits)
        index, codes = encode(weights, scale[part], tables)
        w8 = decode(index, codes, tables)
        # Past the first or last entry: there, and further out.
        last = (codes == 0) | (codes == tables.shape[1] - 1)
        units = weights / scale[part, None]
        outer = torch.where(codes == 0, units < w8, units > w8)
        return _Rounded(w8, ~(last & outer))

    def _tables_of(self, bits: int) -> Tensor:
        tables = getattr(self, _tables(bits))
        assert isinstance(tables, Tensor)
        return tables


def _tables(bits: int) -> str:
    return f"_tables_{bits}"
