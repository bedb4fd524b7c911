"""Rounding to the table grid with error feedback: each column's rounding error is made up for by the
columns after it.

The method is GPTQ (Frantar et al., arXiv 2210.17323), changed for tables: columns go in their stored order;
at the start of every group of 16 each row picks the table that suits the weights as they stand then, and
keeps it for the group.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import embedding_bag

from rockledge.errors import CheckpointError
from rockledge.formats.bands import GROUP
from rockledge.quantize.cholesky import cholesky_

# Columns whose errors are gathered before they reach the rest of the matrix in one product; a multiple of
# GROUP.
_BLOCK = 128
# floor(2 u) of a weight u in table units decides its nearest entry (formats.table): cells -256 .. 255.
_CELLS = 512


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix: w8 as fp32 [N, K], and below 8 bits codes uint8 [N, K] and index uint8 [N,
    ceil(K/16)] (at 8 bits both are None: the code is w8).
    """

    w8: torch.Tensor
    codes: torch.Tensor | None = None
    index: torch.Tensor | None = None


def feedback_factor(
    moments: torch.Tensor, damping: float = 0.01, raised: Callable[[float], None] | None = None
) -> torch.Tensor:
    """Upper Cholesky factor U of the inverse of the damped second moments `moments` fp32 [K, K]: fp32 [K, K].

    Row k of U, divided by U[k, k], says how an error in column k moves the best values of the columns
    behind it. Inputs that are always zero get moment 1, so that the factor exists; their weights do not
    matter. Where the damped moments are singular in floats the damping is raised tenfold until they are not,
    and `raised` is called with the one that was enough. CheckpointError when the moments are not finite.
    """
    diagonal = moments.diagonal().flip(0).double()
    mean = diagonal.mean()
    if not bool(torch.isfinite(mean)):
        raise CheckpointError(
            "The inputs of a linear are NaN or infinite in the backward pass; the checkpoint is damaged, "
            "get it again."
        )
    # Factor of the inverse without inverting twice: chol(H) of the reversed order, inverted, is U reversed.
    # Only the factorisation needs doubles; they are the largest thing there is for a wide feed-forward.
    start = damping
    h = torch.empty(moments.shape, dtype=torch.float64, device=moments.device)
    while True:
        floor = (damping * mean.clamp_min(1e-30)).expand_as(diagonal)
        h.copy_(moments.flip(0, 1))
        h.diagonal().copy_(diagonal + torch.where(diagonal <= 0, torch.ones_like(diagonal), floor))
        if cholesky_(h):
            break
        damping *= 10
    if raised is not None and damping != start:
        raised(damping)
    lower = h.float()
    del h
    inverse = torch.eye(lower.shape[0], device=lower.device)
    torch.linalg.solve_triangular(lower, inverse, upper=False, out=inverse)
    del lower
    upper: torch.Tensor = inverse.flip(0, 1).contiguous()
    return upper


def round_to_tables(
    weights: torch.Tensor, scale: torch.Tensor, tables: torch.Tensor, factor: torch.Tensor
) -> Rounded:
    """Rounds `weights` fp32 [N, K] to `scale[n] * tables[index][code]`.

    `scale` fp32 [N], positive; `tables` int8 [16, entries]; `factor` fp32 [K, K] from `feedback_factor`.
    """
    grid = _TableGrid(tables.to(weights.device), weights.shape)
    w8 = _round(weights, scale, grid, factor)
    return Rounded(w8, grid.codes.T.contiguous(), grid.index.T.contiguous())


def round_to_integers(weights: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor) -> Rounded:
    """Rounds `weights` fp32 [N, K] to `scale[n]` times a whole number in -127 .. 127; arguments as above."""
    return Rounded(_round(weights, scale, _IntegerGrid(), factor))


class _Grid(Protocol):
    """What a weight may become; weights come in units of their row's scale."""

    def start_group(self, group: int, u: torch.Tensor, importance: torch.Tensor) -> None:
        """Called before the columns of a group with their weights [inputs, N] and importance [inputs]."""

    def nearest(self, column: int, u: torch.Tensor) -> torch.Tensor:
        """The rounded values [N] of a column's weights [N]."""


def _round(weights: torch.Tensor, scale: torch.Tensor, grid: _Grid, factor: torch.Tensor) -> torch.Tensor:
    """The columns in order, each one's error passed on; returns w8 fp32 [N, K]."""
    rows, cols = weights.shape
    left = (weights / scale[:, None]).T.contiguous()  # [K, N]: a column of the matrix is contiguous
    w8 = torch.empty_like(left)
    inverse = 1.0 / factor.diagonal()
    importance = inverse.square()
    for block in range(0, cols, _BLOCK):
        block_end = min(block + _BLOCK, cols)
        errors = torch.empty((block_end - block, rows), device=weights.device)
        for start in range(block, block_end, GROUP):
            end = min(start + GROUP, block_end)
            grid.start_group(start // GROUP, left[start:end], importance[start:end])
            for k in range(start, end):
                w8[k] = grid.nearest(k, left[k])
                error = torch.sub(left[k], w8[k], out=errors[k - block]).mul_(inverse[k])
                left[k + 1 : end].addr_(factor[k, k + 1 : end], error, alpha=-1.0)
            done = slice(start - block, end - block)
            left[end:block_end].addmm_(factor[start:end, end:block_end].T, errors[done], alpha=-1.0)
        left[block_end:].addmm_(factor[block:block_end, block_end:].T, errors, alpha=-1.0)
    return w8.T.contiguous()


class _IntegerGrid:
    """Whole numbers in -127 .. 127."""

    def start_group(self, group: int, u: torch.Tensor, importance: torch.Tensor) -> None:
        pass

    def nearest(self, column: int, u: torch.Tensor) -> torch.Tensor:
        return u.round().clamp_(-127, 127)


class _TableGrid:
    """The tables as lookups by cell: nearest code, its value, and the value's square. Keeps codes and
    indices."""

    def __init__(self, tables: torch.Tensor, shape: torch.Size) -> None:
        rows, cols = shape
        values = tables.float()
        centres = (torch.arange(_CELLS, device=values.device) - _CELLS // 2) / 2 + 0.25
        code = (values[:, None, :] - centres[None, :, None]).abs().argmin(dim=2)  # [tables, cells]
        value = values.gather(1, code)
        self._value_by_cell = value.T.contiguous()  # [cells, tables]
        self._square_by_cell = (value * value).T.contiguous()
        self._code = code.to(torch.uint8).reshape(-1)
        self._value = value.reshape(-1)
        self._offset = torch.zeros(rows, dtype=torch.int32, device=values.device)
        self.codes = torch.empty((cols, rows), dtype=torch.uint8, device=values.device)
        self.index = torch.empty((-(-cols // GROUP), rows), dtype=torch.uint8, device=values.device)

    def start_group(self, group: int, u: torch.Tensor, importance: torch.Tensor) -> None:
        """Takes the table of least error: sum w u^2 - 2 sum w u q_t + sum w q_t^2, the first term being the
        same for all."""
        of_row = u.T.contiguous()
        cells = self._cells(of_row)
        weight = importance.expand_as(of_row).contiguous()
        cross = embedding_bag(cells, self._value_by_cell, mode="sum", per_sample_weights=weight * of_row)
        square = embedding_bag(cells, self._square_by_cell, mode="sum", per_sample_weights=weight)
        chosen = (square - 2 * cross).argmin(dim=1)
        self.index[group] = chosen
        self._offset = chosen.int() * _CELLS

    def nearest(self, column: int, u: torch.Tensor) -> torch.Tensor:
        cell = self._cells(u).add_(self._offset)
        torch.index_select(self._code, 0, cell, out=self.codes[column])
        return self._value.index_select(0, cell)

    @staticmethod
    def _cells(u: torch.Tensor) -> torch.Tensor:
        return (2 * u).floor_().clamp_(-(_CELLS // 2), _CELLS // 2 - 1).int().add_(_CELLS // 2)
