"""Rounding to the table grid with error feedback: the columns after each column compensate for its rounding
error.

The method is GPTQ (Frantar et al., arXiv 2210.17323), changed for tables. Columns go group by group, 16 that
share a table index at a time. Each row rounds a group with the few tables that suit its weights as they stand
then, passing errors on within the group, and keeps the one that ends best.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import embedding_bag

from rockledge.errors import CheckpointError
from rockledge.formats.bands import GROUP
from rockledge.quantization.rounding.cholesky import cholesky_

# Columns whose errors are gathered before they reach the rest of the matrix in one product; a multiple of
# GROUP.
_BLOCK = 128
# floor(2 u) of a weight u in table units decides its nearest entry (formats.table): cells -256 .. 255.
_CELLS = 512
# Tables that each row tries on a group: with the likeliest alone the outputs have more error (docs/log.md),
# with all sixteen no less.
_TRIED = 3
# Share of the mean second moment that is added to each: moments of a few thousand tokens are those of other
# text only roughly. On other text the error was least at 0.05, of 0.01 to 0.2 (docs/log.md).
_DAMPING = 0.05


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix: w8 as fp32 [N, K], and below 8 bits codes uint8 [N, K] and index uint8 [N,
    ceil(K/16)] (at 8 bits both are None: the code is w8).
    """

    w8: torch.Tensor
    codes: torch.Tensor | None = None
    index: torch.Tensor | None = None

    def rows(self, chosen: torch.Tensor) -> "Rounded":
        """The rows of these numbers, int64."""
        codes, index = (None if part is None else part[chosen] for part in (self.codes, self.index))
        return Rounded(self.w8[chosen], codes, index)


@dataclass(frozen=True)
class Feedback:
    """How errors are passed on. `order` int64 [K] is that in which columns are rounded; `factor` fp32 [K, K],
    in that order, is the upper Cholesky factor U of the inverse of the damped second moments.

    Row k of U, divided by U[k, k], says how an error in the k-th column moves the best values of those
    after it.
    """

    factor: torch.Tensor
    order: torch.Tensor

    @property
    def importance(self) -> torch.Tensor:
        """What is left of a squared error in each column when those after it have made up for what they can,
        fp32 [K], columns as they are stored."""
        left = self.factor.diagonal().square().reciprocal()
        return torch.empty_like(left).index_copy_(0, self.order, left)


def rounding_order(moments: torch.Tensor) -> torch.Tensor:
    """Groups of 16 neighbouring inputs, those with the largest `moments` [K, K] first: int64 [K].

    The most columns can compensate for what is rounded first. A last group of fewer inputs stays the last.
    """
    size = moments.diagonal()
    whole = len(size) - len(size) % GROUP
    groups = torch.argsort(size[:whole].view(-1, GROUP).sum(dim=1), descending=True, stable=True)
    columns = torch.arange(len(size), device=size.device)
    return torch.cat([columns[:whole].view(-1, GROUP)[groups].reshape(-1), columns[whole:]])


def feedback(
    moments: torch.Tensor,
    *,
    activation_order: bool = True,
    damping: float = _DAMPING,
    raised: Callable[[float], None] | None = None,
) -> Feedback:
    """How errors in inputs with second moments `moments` fp32 [K, K] are passed on, in `rounding_order` or
    as the columns are stored.

    Inputs that are always zero get moment 1, so that the factor exists; their weights do not matter. Where
    the damped moments are singular in floats the damping is raised tenfold until they are not, and `raised`
    is called with the one that was enough. CheckpointError when the moments are not finite.
    """
    order = rounding_order(moments) if activation_order else torch.arange(len(moments), device=moments.device)
    # Factor of the inverse without inverting twice: chol(H) of the reversed order, inverted, is U reversed.
    reverse = order.flip(0)
    diagonal = moments.diagonal()[reverse].double()
    mean = diagonal.mean()
    if not bool(torch.isfinite(mean)):
        raise CheckpointError(
            "the inputs of a linear are NaN or infinite in the backward pass; the checkpoint is damaged, "
            "fetch it again"
        )
    # Only the factorisation needs doubles; they are the largest thing there is for a wide feed-forward.
    start = damping
    h = torch.empty(moments.shape, dtype=torch.float64, device=moments.device)
    while True:
        floor = (damping * mean.clamp_min(1e-30)).expand_as(diagonal)
        for first in range(0, len(h), _BLOCK):
            h[first : first + _BLOCK] = moments[reverse[first : first + _BLOCK, None], reverse]
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
    return Feedback(inverse.flip(0, 1).contiguous(), order)


def round_to_tables(
    weights: torch.Tensor, scale: torch.Tensor, tables: torch.Tensor, how: Feedback
) -> Rounded:
    """Rounds `weights` fp32 [N, K] to `scale[n] * tables[index][code]`.

    `scale` fp32 [N], positive; `tables` int8 [16, entries]; `how` from `feedback`.
    """
    grid = _TableGrid(tables.to(weights.device), weights.shape)
    w8 = _round(weights, scale, grid, how)
    return Rounded(w8, grid.codes.T.contiguous(), grid.index.T.contiguous())


def round_to_integers(weights: torch.Tensor, scale: torch.Tensor, how: Feedback) -> Rounded:
    """Rounds `weights` fp32 [N, K] to `scale[n]` times a whole number in -127 .. 127; arguments as above."""
    return Rounded(_round(weights, scale, _IntegerGrid(), how))


class _Grid(Protocol):
    """What a weight may become; weights come in units of their row's scale."""

    def group(self, first: int, u: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rounds the columns from `first` on, `u` [inputs, N], which may be changed, with their part of the
        factor [inputs, inputs]: values and errors as `_in_turn` gives them."""


def _round(weights: torch.Tensor, scale: torch.Tensor, grid: _Grid, how: Feedback) -> torch.Tensor:
    """The groups in order, each one's errors passed on; returns w8 fp32 [N, K]."""
    rows, cols = weights.shape
    factor = how.factor
    # [K, N]: a column of the matrix is contiguous.
    left = (weights / scale[:, None]).T.index_select(0, how.order).contiguous()
    w8 = torch.empty_like(left)
    stored: list[int] = how.order[::GROUP].tolist()  # where each group lies in the matrix
    for block in range(0, cols, _BLOCK):
        block_end = min(block + _BLOCK, cols)
        errors = torch.empty((block_end - block, rows), device=weights.device)
        for start in range(block, block_end, GROUP):
            end = min(start + GROUP, block_end)
            first, done = stored[start // GROUP], slice(start - block, end - block)
            values, errors[done] = grid.group(first, left[start:end], factor[start:end, start:end])
            w8[first : first + end - start] = values
            left[end:block_end].addmm_(factor[start:end, end:block_end].T, errors[done], alpha=-1.0)
        left[block_end:].addmm_(factor[block:block_end, block_end:].T, errors, alpha=-1.0)
    return w8.T.contiguous()


def _in_turn(
    u: torch.Tensor, factor: torch.Tensor, nearest: Callable[[torch.Tensor, torch.Tensor], object]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds columns `u` [inputs, N] one after another and passes each one's error on to those after it.

    `nearest` takes a column and where to put its rounded values: all the time goes by here, on a GPU by the
    number of operations. Returns the values and the errors, these so scaled that the sum of their squares is
    what they cost in the end; both [inputs, N]. `u` is changed.
    """
    values, errors = torch.empty_like(u), torch.empty_like(u)
    inverse = 1.0 / factor.diagonal()
    for k in range(len(u)):
        nearest(u[k], values[k])
        torch.sub(u[k], values[k], out=errors[k]).mul_(inverse[k])
        u[k + 1 :].addr_(factor[k, k + 1 :], errors[k], alpha=-1.0)
    return values, errors


class _IntegerGrid:
    """Whole numbers in -127 .. 127."""

    def group(self, first: int, u: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _in_turn(u, factor, lambda v, out: torch.round(v, out=out).clamp_(-127, 127))


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
        self._row = torch.arange(rows, device=values.device)
        self.codes = torch.empty((cols, rows), dtype=torch.uint8, device=values.device)
        self.index = torch.empty((-(-cols // GROUP), rows), dtype=torch.uint8, device=values.device)

    def group(self, first: int, u: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tables = self._likely(u, factor.diagonal().square().reciprocal())  # [tried, N]
        offset = (tables * _CELLS).reshape(-1)
        # The cell among those of all tables, with few operations: in floats, exact to 1/2048 of a unit.
        lowest = offset.float()
        middle, highest = lowest + _CELLS // 2, lowest + (_CELLS - 1)

        def nearest(v: torch.Tensor, out: torch.Tensor) -> None:
            cell = torch.add(middle, v, alpha=2.0).clamp_(lowest, highest).int()
            torch.index_select(self._value, 0, cell, out=out)

        values, errors = _in_turn(u.repeat(1, len(tables)), factor, nearest)
        best = errors.square().sum(dim=0).view(len(tables), -1).argmin(dim=0)
        kept = best * len(self._row) + self._row
        values = values.index_select(1, kept)
        self.index[first // GROUP] = tables.reshape(-1).index_select(0, kept)
        # A value's own cell has it as the nearest.
        cells = self._cells(values).add_(offset.index_select(0, kept))
        self.codes[first : first + len(u)] = self._code[cells]
        return values, errors.index_select(1, kept)

    def _likely(self, u: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
        """The tables of least error if none were passed on: sum w u^2 - 2 sum w u q_t + sum w q_t^2, the
        first term being the same for all."""
        of_row = u.T.contiguous()
        cells = self._cells(of_row)
        weight = importance.expand_as(of_row).contiguous()
        cross = embedding_bag(cells, self._value_by_cell, mode="sum", per_sample_weights=weight * of_row)
        square = embedding_bag(cells, self._square_by_cell, mode="sum", per_sample_weights=weight)
        return (square - 2 * cross).topk(_TRIED, dim=1, largest=False).indices.T.contiguous()

    @staticmethod
    def _cells(u: torch.Tensor) -> torch.Tensor:
        return (2 * u).floor_().clamp_(-(_CELLS // 2), _CELLS // 2 - 1).int().add_(_CELLS // 2)
