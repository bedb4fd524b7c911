"""Learning the tables of a linear: Lloyd's algorithm over groups of weights that choose among tables.

Each round gives every group the table, and every weight the entry, that loses least; then every entry moves
to the mean of the weights it was given. The start is a set of tables learned once on Gaussian weights,
which is what rotated weights nearly are, so a few rounds suffice. Everything is written for CPU and CUDA
alike, in chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag, pad

from rockledge.errors import UsageError
from rockledge.formats.bands import GROUP
from rockledge.formats.gaussian_tables import GAUSSIAN_TABLES, UNITS_PER_RMS

Tensor = torch.Tensor

LEARNING_GROUPS = (
    16384  # groups looked at in a round: 256 weights an entry at four bits, and no faster to forget
)
_CELLS = 4096  # cells of the error lookup, over units -128 .. 128
_CHUNK = 1 << 16  # groups handled at a time
_FIXED = float(1 << 16)  # sums are taken in integers of 2^-16: the same in any order, so CUDA repeats itself


@dataclass(frozen=True)
class Coded:
    """A linear in table code: `tables` int8 [16, 2^bits] with rising entries, `scale` fp32 [N], `index` uint8
    [N, ceil(K/16)], `codes` uint8 [N, K], all on the device of the weights."""

    tables: Tensor
    scale: Tensor
    index: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Lookup:
    """Tables [T, E] (fp32, rising entries) as lookups by cell: `code` uint8 and `error` fp32, both [4096,
    T].
    """

    tables: Tensor
    code: Tensor
    error: Tensor


def lookup(tables: Tensor) -> Lookup:
    """The lookups of fp32 `tables` [T, E] in units of -128 .. 128; entries are sorted first."""
    entries = tables.sort(dim=1).values
    cells = torch.arange(_CELLS, device=tables.device, dtype=torch.float32)
    centres = (cells + 0.5) * (256.0 / _CELLS) - 128.0
    borders = ((entries[:, 1:] + entries[:, :-1]) / 2).contiguous()
    code = torch.searchsorted(borders, centres.expand(len(entries), -1).contiguous())
    error = (entries.gather(1, code) - centres).square()
    return Lookup(entries, code.T.contiguous().to(torch.uint8), error.T.contiguous())


def group_errors(units: Tensor, weight: Tensor | None, tables: Lookup) -> tuple[Tensor, Tensor]:
    """What each table would lose on each group: (error fp32 [G, T], cell int32 [G, g]).

    `units` fp32 [G, g] are weights in units of their row's scale, `weight` [G, g] their importance or None.
    The error is that of the middle of each weight's cell, near enough to choose by.
    """
    cell = ((units + 128.0) * (_CELLS / 256.0)).to(torch.int32).clamp_(0, _CELLS - 1)
    return embedding_bag(cell, tables.error, mode="sum", per_sample_weights=weight), cell


def means(
    units: Tensor, weight: Tensor | None, choice: Tensor, cell: Tensor, tables: Lookup
) -> tuple[Tensor, Tensor]:
    """Weighted sums of the weights given to each entry and the sums of their importance, fp64 [T, E] both.

    `choice` int64 [G] is each group's table.
    """
    entries = tables.tables.shape[1]
    code = tables.code[cell.long(), choice[:, None]]
    slot = (choice[:, None] * entries + code).reshape(-1)
    mass = torch.ones_like(units) if weight is None else weight
    totals = []
    for values in (units * mass, mass):
        fixed = (values.reshape(-1) * _FIXED).round().long()
        zero = torch.zeros(tables.tables.numel(), dtype=torch.int64, device=units.device)
        totals.append(zero.index_add_(0, slot, fixed).double().view_as(tables.tables) / _FIXED)
    return totals[0], totals[1]


def free_tables(sums: Tensor, mass: Tensor, old: Tensor) -> Tensor:
    """Every entry at the mean of its weights; entries nobody chose stay. fp32 [T, E]."""
    return torch.where(mass > 0, sums / mass.clamp_min(1e-9), old.double()).float()


def start_tables(bits: int) -> Tensor:
    """The tables learned on Gaussian weights, fp32 [16, 2^bits], in units of 1/32 of a row's rms."""
    if bits not in GAUSSIAN_TABLES:
        raise UsageError(
            f"there are no tables for {bits} bits a weight; choose one of {sorted(GAUSSIAN_TABLES)}"
        )
    return torch.tensor(GAUSSIAN_TABLES[bits], dtype=torch.float32)


def start_scale(w: Tensor) -> Tensor:
    """The row scales fp32 [N] that the start tables expect: 1/32 of each row's rms, above 0 for zeros too."""
    return w.float().square().mean(dim=1).sqrt().clamp_min(1e-30) / UNITS_PER_RMS


def _grouped(values: Tensor) -> Tensor:
    """[N, K] as groups [N * ceil(K/16), 16], zero padded."""
    short = -values.shape[1] % GROUP
    return (pad(values, (0, short)) if short else values).reshape(-1, GROUP)


def _importance(weight: Tensor | None, rows: Tensor, cols: int) -> Tensor | None:
    """Importance of the weights in `rows` (row numbers), fp32 [n, K]; None where all count the same."""
    if weight is None:
        # Padding must not count.
        return None if cols % GROUP == 0 else torch.ones(len(rows), cols, device=rows.device)
    return weight.float().expand(len(rows), cols) if weight.dim() == 1 else weight[rows].float()


def _row_chunks(w: Tensor) -> Iterator[Tensor]:
    step = max(1, _CHUNK * GROUP // w.shape[1])
    for first in range(0, len(w), step):
        yield torch.arange(first, min(first + step, len(w)), device=w.device)


def _sample(w: Tensor, scale: Tensor, weight: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Groups to learn from, in units of their row's scale, and their importance (scaled to a mean of 1)."""
    across = -(-w.shape[1] // GROUP)
    rows = torch.arange(len(w), device=w.device)
    if len(w) * across > LEARNING_GROUPS:
        drawn = torch.randperm(len(w), generator=torch.Generator().manual_seed(seed))
        rows = drawn[: max(1, -(-LEARNING_GROUPS // across))].sort().values.to(w.device)
    units = _grouped(w[rows].float() / scale[rows, None])
    importance = _importance(weight, rows, w.shape[1])
    # A row's error counts by the square of its scale: that is what an error of one unit costs.
    by_row = (scale[rows] / scale[rows].mean()).square()
    given = torch.ones(len(rows), w.shape[1], device=w.device) if importance is None else importance
    counted = given * by_row[:, None]
    return units, _grouped(counted / counted.mean().clamp_min(1e-30))


def encode(w: Tensor, scale: Tensor, tables: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Best table of every group and nearest codes: (index uint8 [N, ceil(K/16)], codes uint8 [N, K]).

    `w` [N, K], `scale` fp32 [N], `tables` int8 [16, 2^bits] with rising entries, `weight` as in
    learn_tables. Codes are the nearest entries exactly; the table is chosen by errors exact to 1/16 of a
    unit.
    """
    found, nearest = lookup(tables.float()), _nearest(tables)
    index, codes = [], []
    for rows in _row_chunks(w):
        units = _grouped(w[rows].float() / scale[rows, None])
        importance = _importance(weight, rows, w.shape[1])
        error, _ = group_errors(units, None if importance is None else _grouped(importance), found)
        choice = error.argmin(dim=1)
        index.append(choice.to(torch.uint8).view(len(rows), -1))
        codes.append(_codes(units, choice, nearest).view(len(rows), -1)[:, : w.shape[1]])
    return torch.cat(index), torch.cat(codes)


def nearest_codes(w: Tensor, scale: Tensor, index: Tensor, tables: Tensor) -> Tensor:
    """Codes uint8 [N, K] of the nearest entries of the tables that `index` uint8 [N, ceil(K/16)] names; the
    others as in `encode`."""
    nearest = _nearest(tables)
    codes = [
        _codes(_grouped(w[rows].float() / scale[rows, None]), index[rows].reshape(-1).long(), nearest)
        for rows in _row_chunks(w)
    ]
    return torch.cat([code.view(-1, index.shape[1] * GROUP)[:, : w.shape[1]] for code in codes])


def values_by_half_unit(tables: Tensor) -> Tensor:
    """The nearest entry for every half unit from -128 on, int8 [16 * 512], of `tables` int8 [16, 2^bits] with
    rising entries."""
    return tables.gather(1, _nearest(tables).long()).reshape(-1)


def nearest_values(units: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """What `decode` gives for `nearest_codes`, int8 [N, K], with fewer operations: of `units` fp32 [N, K],
    the tables `index` int32 [N, ceil(K/16)] and `values` of `values_by_half_unit`."""
    short = -units.shape[1] % GROUP
    padded = pad(units, (0, short)) if short else units
    half = (padded * 2.0).floor_().clamp_(-256, 255).int().view(*index.shape, GROUP)
    half += (index * 512 + 256)[:, :, None]
    return values.index_select(0, half.view(-1)).view(padded.shape)[:, : units.shape[1]]


def _nearest(tables: Tensor) -> Tensor:
    """The code of the nearest entry for every half unit, uint8 [16, 512]. Entries are integers: cells of half
    a unit tell exactly which is nearest."""
    entries = tables.float().sort(dim=1).values
    steps = torch.arange(512, device=tables.device, dtype=torch.float32) / 2 - 127.75
    middles = ((entries[:, 1:] + entries[:, :-1]) / 2).contiguous()
    return torch.searchsorted(middles, steps.expand(len(tables), -1).contiguous()).to(torch.uint8)


def _codes(units: Tensor, choice: Tensor, nearest: Tensor) -> Tensor:
    """Codes [G, 16] of `units` [G, 16] in the tables `choice` int64 [G]."""
    half = (units * 2.0).floor().clamp_(-256, 255).long() + 256
    return nearest[choice[:, None], half]


def decode(index: Tensor, codes: Tensor, tables: Tensor) -> Tensor:
    """w8, int8 [N, K], of `index` uint8 [N, ceil(K/16)], `codes` uint8 [N, K] and `tables` int8 [16,
    2^bits].
    """
    of_weight = index.repeat_interleave(GROUP, dim=1)[:, : codes.shape[1]].int()
    return tables.reshape(-1)[of_weight * tables.shape[1] + codes.int()]


def fitted_scale(w: Tensor, w8: Tensor, scale: Tensor, weight: Tensor | None = None) -> Tensor:
    """The row scales fp32 [N] that minimise the weighted squared error of scale * w8; `scale` where w8 is
    zero.
    """
    fitted = scale.clone()
    for rows in _row_chunks(w):
        importance = _importance(weight, rows, w.shape[1])
        value = w8[rows].float()
        counted = value if importance is None else value * importance
        best = (counted * w[rows].float()).sum(1) / (counted * value).sum(1)
        fitted[rows] = torch.where(torch.isfinite(best) & (best > 0), best, scale[rows])
    return fitted


def learn_tables(
    w: Tensor,
    bits: int,
    weight: Tensor | None = None,
    iterations: int = 8,
    seed: int = 0,
) -> Coded:
    """Tables, row scales, indices and codes of a linear, by `iterations` rounds of Lloyd's algorithm.

    `w` [N, K] on any device; `bits` 2, 3 or 4; `weight` the importance of errors, [K] per input (such as
    the diagonal of the input's second moment) or [N, K], None for all alike. `seed` draws the rows that a
    large matrix is learned from. The same arguments give the same result on one device.
    """
    tables = start_tables(bits).to(w.device)
    scale = start_scale(w)
    units, importance = _sample(w, scale, weight, seed)
    for _ in range(iterations):
        current = lookup(tables)
        error, cell = group_errors(units, importance, current)
        sums, mass = means(units, importance, error.argmin(dim=1), cell, current)
        tables = free_tables(sums, mass, current.tables)
    rounded = tables.round().clamp_(-127, 127).sort(dim=1).values.to(torch.int8)
    index, codes = encode(w, scale, rounded, weight)
    scale = fitted_scale(w, decode(index, codes, rounded), scale, weight)
    index, codes = encode(w, scale, rounded, weight)
    scale = fitted_scale(w, decode(index, codes, rounded), scale, weight)
    return Coded(rounded, scale, index, codes)
