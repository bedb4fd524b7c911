"""Rounding to the table grid with error feedback: each column's rounding error is made up for by the columns after it.

The method is GPTQ (Frantar et al., arXiv 2210.17323), changed for tables: columns go in their stored order; at the
start of every group of 16 each row picks the table that suits the weights as they stand then, and keeps it for the group.
"""

from dataclasses import dataclass

import torch

from rockledge.formats.bands import GROUP

# Columns whose errors are gathered before they reach the rest of the matrix in one product; a multiple of GROUP.
_BLOCK = 128
# floor(2 u) of a weight u in table units decides its nearest entry (formats.table): cells -256 .. 255.
_CELLS = 512


@dataclass(frozen=True)
class Rounded:
    """Codes uint8 [N, K] and table index uint8 [N, ceil(K/16)] of a matrix, and its decoded w8 as fp32 [N, K]."""

    codes: torch.Tensor
    index: torch.Tensor
    w8: torch.Tensor


def feedback_factor(moments: torch.Tensor, damping: float = 0.01) -> torch.Tensor:
    """Upper Cholesky factor U of the inverse of the damped second moments `moments` fp32 [K, K]: fp32 [K, K].

    Row k of U, divided by U[k, k], says how an error in column k moves the best values of the columns behind it.
    Inputs that are always zero get moment 1, so that the factor exists; their weights do not matter.
    """
    h = moments.double()
    diagonal = h.diagonal()
    dead = diagonal <= 0
    floor = damping * diagonal.mean().clamp_min(1e-30)
    h = h + torch.diag(torch.where(dead, torch.ones_like(diagonal), floor.expand_as(diagonal)))
    # Factor of the inverse without inverting twice: chol(H) of the reversed order, inverted, is U reversed.
    lower = torch.linalg.cholesky(h.flip(0, 1))
    eye = torch.eye(h.shape[0], dtype=h.dtype, device=h.device)
    inverse = torch.linalg.solve_triangular(lower, eye, upper=False)
    return inverse.flip(0, 1).contiguous().float()


def round_to_tables(weights: torch.Tensor, scale: torch.Tensor, tables: torch.Tensor, factor: torch.Tensor) -> Rounded:
    """Rounds `weights` fp32 [N, K] to `scale[n] * tables[index][code]`.

    `scale` fp32 [N], positive; `tables` int8 [16, entries]; `factor` from `feedback_factor`, [K, K].
    """
    rows, cols = weights.shape
    grid = _Grid(tables.to(weights.device))
    left = (weights / scale[:, None]).T.contiguous()  # [K, N]: a column of the matrix is contiguous
    codes = torch.empty((cols, rows), dtype=torch.uint8, device=weights.device)
    w8 = torch.empty((cols, rows), device=weights.device)
    index = torch.empty((-(-cols // GROUP), rows), dtype=torch.uint8, device=weights.device)
    inverse_diagonal = 1.0 / factor.diagonal()
    for block in range(0, cols, _BLOCK):
        block_end = min(block + _BLOCK, cols)
        errors = torch.empty((block_end - block, rows), device=weights.device)
        for start in range(block, block_end, GROUP):
            end = min(start + GROUP, block_end)
            chosen = grid.best_table(left[start:end], inverse_diagonal[start:end])
            index[start // GROUP] = chosen
            for k in range(start, end):
                codes[k], w8[k] = grid.nearest(left[k], chosen)
                error = (left[k] - w8[k]) * inverse_diagonal[k]
                errors[k - block] = error
                left[k + 1 : end].addr_(factor[k, k + 1 : end], error, alpha=-1.0)
            done = slice(start - block, end - block)
            left[end:block_end].addmm_(factor[start:end, end:block_end].T, errors[done], alpha=-1.0)
        left[block_end:].addmm_(factor[block:block_end, block_end:].T, errors, alpha=-1.0)
    return Rounded(codes.T.contiguous(), index.T.contiguous(), w8.T.contiguous())


def round_to_integers(weights: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Nearest w8 in -127 .. 127 of `weights` [N, K] under row scales [N], as fp32: the 8-bit width needs no more."""
    return (weights / scale[:, None]).round_().clamp_(-127, 127)


class _Grid:
    """The tables as lookups by cell: nearest code, its value, and the value's square."""

    def __init__(self, tables: torch.Tensor) -> None:
        values = tables.float()
        count = values.shape[0]
        centres = (torch.arange(_CELLS, device=values.device) - _CELLS // 2) / 2 + 0.25
        code = (values[:, None, :] - centres[None, :, None]).abs().argmin(dim=2)  # [tables, cells]
        value = values.gather(1, code)
        self._value_by_cell = value.T.contiguous()  # [cells, tables]
        self._square_by_cell = (value * value).T.contiguous()
        self._code = code.to(torch.uint8).reshape(-1)
        self._value = value.reshape(-1)
        self.tables = count

    @staticmethod
    def _cells(u: torch.Tensor) -> torch.Tensor:
        return (2 * u).floor_().clamp_(-(_CELLS // 2), _CELLS // 2 - 1).int().add_(_CELLS // 2)

    def best_table(self, u: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """For a group u [inputs, N] the table of least error, each input's squared error times weight squared: uint8 [N].

        The error of table t is sum w u^2 - 2 sum w u q_t + sum w q_t^2; the first term is the same for all.
        """
        cells = self._cells(u).T.contiguous()
        importance = weight.square().expand_as(u.T).contiguous()
        cross = torch.nn.functional.embedding_bag(
            cells, self._value_by_cell, mode="sum", per_sample_weights=importance * u.T
        )
        square = torch.nn.functional.embedding_bag(
            cells, self._square_by_cell, mode="sum", per_sample_weights=importance
        )
        return (square - 2 * cross).argmin(dim=1).to(torch.uint8)

    def nearest(self, u: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Code uint8 [N] and value fp32 [N] nearest to u [N] in each row's table uint8 [N]."""
        cell = self._cells(u) + table.int() * _CELLS
        return self._code.index_select(0, cell), self._value.index_select(0, cell)
