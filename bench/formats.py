"""Which weight format loses least at equal bits: the experiment behind docs/formats.md.

    python -m bench.formats                  Gaussian weights and rotated SmolLM2 matrices, some minutes
    python -m bench.formats --quick          a little Gaussian data at 4 bits, in seconds
    python -m bench.formats --start-tables   makes formats/gaussian_tables.py again

Every format is given the same chance: its tables are learned on the matrix that they code, by Lloyd's
algorithm with noise that fades, from a start that suits them. Printed is the squared error as a fraction of
the energy, as it is and (second column) carried to b + 1/4 bits by the rule that a bit quarters it. Bits are
those of codes and indices; row scales (32 / K) and tables (a few hundred bytes) come on top of all alike.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

import torch

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.rounding.codebook import (
    Lookup,
    fitted_scale,
    free_tables,
    group_errors,
    lookup,
    means,
    start_scale,
)
from rockledge.quantization.transforming.rotate import rotated

Tensor = torch.Tensor

ROUNDS = 60
LEARNED_WEIGHTS = 1 << 17  # weights looked at in a round, more for very many tables
ROWS = 512  # of a matrix that are compared
MATRICES = ((14, "ffn.gate"), (29, "ffn.down"))
SEARCHED = (0.6, 0.7, 0.8, 0.88, 0.94, 1.0, 1.06, 1.12, 1.2, 1.3)  # of the scale that is searched around


@dataclass(frozen=True)
class Format:
    """A table format: `index` bits choose a table for each `group` weights.

    `kind` "free": every entry of every table is learned; "derived": one learned codebook times a learned
    multiplier a table; "integer": one learned int8 codebook c times an integer m a group, (c m + 64) >> 7,
    so that `index` is the multiplier itself: seven bits, and an eighth for its sign.
    """

    bits: int
    group: int
    index: int
    kind: str

    @property
    def cost(self) -> float:
        """Bits a weight of codes and indices."""
        return self.bits + self.index / self.group

    def at_quarter(self, loss: float) -> float:
        """A loss carried to `bits` + 1/4 bits by the rule that a bit quarters the squared error."""
        return float(loss * 4.0 ** (self.cost - self.bits - 0.25))


SHIPPED = Format(4, 16, 4, "free")


@cache
def levels(bits: int) -> Tensor:
    """The levels of least squared error for a normal source (Lloyd, Max), largest 1: fp32 [2^bits]."""
    normal = torch.distributions.Normal(0.0, 1.0)
    x = normal.icdf((torch.arange(1 << 16) + 0.5) / (1 << 16))
    found = normal.icdf((torch.arange(1 << bits) + 0.5) / (1 << bits))
    for _ in range(200):
        nearest = torch.searchsorted((found[1:] + found[:-1]) / 2, x)
        count = torch.bincount(nearest, minlength=1 << bits)
        found = torch.zeros_like(found).index_add_(0, nearest, x) / count
    scaled: Tensor = found / found.max()
    return scaled


def _quantiles(units: Tensor, count: int) -> Tensor:
    largest = units.abs().amax(dim=1).sort().values
    return largest[((torch.arange(count) + 0.5) / count * len(largest)).long()]


def _signed(units: Tensor, form: Format) -> tuple[Tensor, Tensor]:
    """Multipliers [T] of both signs and a codebook whose negative side is shorter: the start of free and
    derived.
    """
    codebook = levels(form.bits)
    codebook = torch.where(codebook > 0, codebook, 0.75 * codebook)
    half = _quantiles(units, 1 << (form.index - 1))
    return torch.cat([half, -half]), codebook


def _plain(units: Tensor, form: Format) -> tuple[Tensor, Tensor]:
    return _quantiles(units, 1 << form.index), levels(form.bits)


def _noise(error: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gumbel noise in proportion to the least error of a group: tables are chosen partly by chance."""
    uniform = torch.rand(error.shape, generator=generator).clamp_min(1e-9)
    return error + strength * error.amin(dim=1).mean() * torch.log(-torch.log(uniform))


def _assigned(
    units: Tensor, tables: Tensor, strength: float, generator: torch.Generator
) -> tuple[Lookup, Tensor, Tensor]:
    """What went to each entry: the tables with rising entries, sums and counts [T, E]."""
    current = lookup(tables)
    error, cell = group_errors(units, None, current)
    choice = (_noise(error, strength, generator) if strength else error).argmin(dim=1)
    return current, *means(units, None, choice, cell, current)


def learn_free(units: Tensor, form: Format, generator: torch.Generator, rounds: int) -> Tensor:
    """Free tables, fp32 [T, E]."""
    tables = torch.outer(*_signed(units, form))
    for number in range(rounds):
        strength = max(0.0, 1.0 - number / (0.75 * rounds))
        current, sums, mass = _assigned(units, tables, strength, generator)
        tables = free_tables(sums, mass, current.tables)
    return tables


def learn_derived(units: Tensor, form: Format, generator: torch.Generator, rounds: int) -> Tensor:
    """The better of two derived sets, from multipliers of both signs and of one: fp32 [T, E]."""
    best, lowest = torch.empty(0), float("inf")
    for start in (_signed, _plain):
        multiplier, codebook = start(units, form)
        for number in range(rounds // 2):
            strength = max(0.0, 1.0 - number / (0.375 * rounds))
            _, sums, mass = _assigned(units, torch.outer(multiplier, codebook), strength, generator)
            # Entries were sorted: where a multiplier is negative, they run the other way.
            flip = (multiplier < 0)[:, None]
            sums, mass = (torch.where(flip, part.flip(1), part) for part in (sums, mass))
            codebook = _ratio(
                (multiplier[:, None] * sums).sum(0), (multiplier[:, None] ** 2 * mass).sum(0), codebook
            )
            multiplier = _ratio((codebook * sums).sum(1), (codebook**2 * mass).sum(1), multiplier)
        tables = torch.outer(multiplier, codebook)
        lost = float(group_errors(units, None, lookup(tables))[0].amin(dim=1).sum())
        if lost < lowest:
            best, lowest = tables, lost
    return best


def _ratio(above: Tensor, below: Tensor, old: Tensor) -> Tensor:
    return torch.where(below > 0, above / below.clamp_min(1e-9), old.double()).float()


def learn_integer(units: Tensor, form: Format, generator: torch.Generator, rounds: int) -> Tensor:
    """(c m + 64) >> 7 for every 7-bit multiplier m (8: both signs) with the best codebook c found: [T, E]."""
    multiplier = torch.arange(128)
    codebook = levels(form.bits) * 127
    if form.index == 8:
        multiplier = torch.cat([multiplier, -multiplier])
        codebook = torch.where(codebook > 0, codebook, 0.75 * codebook)
    for _ in range(rounds // 4):
        tables = torch.outer(multiplier.float(), codebook) / 128
        _, sums, mass = _assigned(units, tables, 0.0, generator)
        flip = (multiplier < 0)[:, None]
        sums, mass = (torch.where(flip, part.flip(1), part) for part in (sums, mass))
        factor = multiplier[:, None] / 128
        codebook = _ratio((factor * sums).sum(0), (factor**2 * mass).sum(0), codebook)
    whole = codebook.round().clamp(-127, 127).long()
    return ((multiplier[:, None] * whole + 64) >> 7).clamp(-127, 127).float()


LEARN = {"free": learn_free, "derived": learn_derived, "integer": learn_integer}


def rounded(w: Tensor, scale: Tensor, tables: Tensor, group: int) -> Tensor:
    """`w` [N, K] in units of `scale` [N], rounded to the best tables: fp32 [N, K]."""
    found = lookup(tables)
    out = []
    for rows, by_row in zip(w.split(256), scale.split(256), strict=True):
        units = (rows / by_row[:, None]).reshape(-1, group)
        error, cell = group_errors(units, None, found)
        choice = error.argmin(dim=1)
        code = found.code[cell.long(), choice[:, None]].long()
        out.append(found.tables[choice[:, None], code].reshape(rows.shape))
    return torch.cat(out)


def relative_error(w: Tensor, w8: Tensor, scale: Tensor) -> float:
    """Squared error as a fraction of the energy of `w`."""
    return float((w - w8 * scale[:, None]).square().sum() / w.square().sum())


def learned(w: Tensor, form: Format, scale: Tensor, rounds: int = ROUNDS, seed: int = 0) -> Tensor:
    """The format's tables for the rows of `w` under these scales, as stored: whole numbers, fp32 [T, E]."""
    generator = torch.Generator().manual_seed(seed)
    wanted = max(LEARNED_WEIGHTS, 64 << (form.bits + form.index))
    rows = torch.randperm(len(w), generator=generator)[: max(1, wanted // w.shape[1])]
    units = (w[rows] / scale[rows, None]).reshape(-1, form.group)
    return LEARN[form.kind](units, form, generator, rounds).round().clamp(-127, 127)


def lost(w: Tensor, form: Format, rounds: int = ROUNDS) -> float:
    """What a format loses on `w`: tables learned, row scales refitted twice."""
    scale = start_scale(w)
    tables = learned(w, form, scale, rounds)
    for _ in range(2):
        scale = fitted_scale(w, rounded(w, scale, tables, form.group), scale)
    return relative_error(w, rounded(w, scale, tables, form.group), scale)


def lost_by_row_scale(w: Tensor, form: Format, rounds: int) -> dict[str, float]:
    """What the choice of the row scale changes, tables learned under each."""
    losses = {}
    for name, scale in (("largest weight / 127", w.abs().amax(dim=1) / 127), ("rms / 32", start_scale(w))):
        tables = learned(w, form, scale, rounds)
        losses[name] = relative_error(w, rounded(w, scale, tables, form.group), scale)
        refitted = scale
        for _ in range(2):
            refitted = fitted_scale(w, rounded(w, refitted, tables, form.group), refitted)
        losses[f"{name}, refitted"] = relative_error(w, rounded(w, refitted, tables, form.group), refitted)
        best, lowest = scale, torch.full_like(scale, float("inf"))
        for factor in SEARCHED:
            tried = scale * factor
            error = (w - rounded(w, tried, tables, form.group) * tried[:, None]).square().sum(dim=1)
            best, lowest = torch.where(error < lowest, tried, best), torch.minimum(error, lowest)
        w8 = rounded(w, best, tables, form.group)
        losses[f"{name}, searched and refitted"] = relative_error(w, w8, fitted_scale(w, w8, best))
    return losses


def formats(bits: int) -> Iterator[Format]:
    """All that is compared at one width, by rising cost."""
    compared = [
        Format(bits, group, index, kind)
        for group in (16, 32, 64)
        for index in (3, 4, 5)
        for kind in ("free", "derived")
    ]
    compared += [Format(bits, group, index, "integer") for group, index in ((32, 8), (32, 7), (64, 8))]
    compared += [Format(bits, 32, 8, "free"), Format(bits, 8, 2, "free")]
    return iter(sorted(compared, key=lambda form: (form.cost, form.group, form.kind)))


def smollm2(path: Path) -> list[Tensor]:
    """Rows of some rotated matrices of the packaged model."""
    model = rotated(open_checkpoint(path))
    found = [model.block_weights(layer)[role] for layer, role in MATRICES]
    return [w[:ROWS] for w in found]


def compare(data: dict[str, list[Tensor]], widths: Sequence[int], rounds: int) -> None:
    """Prints the table of formats and that of row scales."""
    header = f"{'bits':>7}  {'group':>5} {'index':>5}  {'tables':<8}" + "".join(
        f"{name:>12} {'at +1/4':>9}" for name in data
    )
    for bits in widths:
        print(f"\n{bits}-bit codes: squared error / energy\n{header}")
        for form in formats(bits):
            losses = [fmean(lost(w, form, rounds) for w in matrices) for matrices in data.values()]
            mark = "  <- shipped" if form == replace(SHIPPED, bits=bits) else ""
            row = f"{form.cost:>7.4f}  {form.group:>5} {form.index:>5}  {form.kind:<8}"
            columns = (f"{loss:>12.5f} {form.at_quarter(loss):>9.5f}" for loss in losses)
            print(row + "".join(columns) + mark, flush=True)
    print("\nrow scale, shipped format: squared error / energy")
    for bits in widths:
        form = replace(SHIPPED, bits=bits)
        found = [[lost_by_row_scale(w, form, rounds) for w in matrices] for matrices in data.values()]
        for name in found[0][0]:
            means_of = [fmean(losses[name] for losses in by_matrix) for by_matrix in found]
            print(f"{bits:>2}  {name:<46}" + "".join(f"{loss:>12.5f}" for loss in means_of), flush=True)


def start_tables() -> str:
    """The tables of gaussian_tables.py: free ones learned on a million normal numbers, the better of two."""
    lines = []
    for bits in (2, 3, 4):
        attempts = []
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            units = torch.randn(1 << 16, 16, generator=generator) * 32
            tables = learn_free(units, replace(SHIPPED, bits=bits), generator, 300).round().clamp(-127, 127)
            attempts.append((float(group_errors(units, None, lookup(tables))[0].amin(dim=1).mean()), tables))
        tables = min(attempts, key=lambda attempt: attempt[0])[1]
        ordered = tables[tables.abs().amax(dim=1).argsort(stable=True)].int().tolist()
        lines += [f"    {bits}: (", *(f"        ({', '.join(map(str, row))})," for row in ordered), "    ),"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a little Gaussian data at 4 bits")
    parser.add_argument(
        "--model", type=Path, help="a checkpoint with SmolLM2's shape (default: the packaged one)"
    )
    parser.add_argument("--start-tables", action="store_true", help="print new start tables and end")
    arguments = parser.parse_args()
    if arguments.start_tables:
        print(start_tables())
        return 0
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    data = {"Gaussian": [torch.randn(64 if arguments.quick else ROWS, 1024, generator=generator)]}
    if not arguments.quick:
        from bench.models import smollm2 as packaged

        data["SmolLM2"] = smollm2(arguments.model or packaged())
    compare(data, (4,) if arguments.quick else (4, 3, 2), 12 if arguments.quick else ROUNDS)
    print(f"\n{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
