"""Tables of weights in the wrong place: swapped tables, or swapped entries of one.

What a code of a table should decode to is measured, as the mean of the original weights that have it. Where
another table fits the groups of a table better than its own, the two were exchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.doctor.basis import ALIKE
from rockledge.doctor.finding import Finding, Requantised
from rockledge.doctor.stored_linear import StoredLinear
from rockledge.formats.bands import GROUP, TABLES, table_widths
from rockledge.formats.packing import PackedLinear, unpack_codes, unpack_index

Float64 = npt.NDArray[np.float64]

_EXCESS = 0.01
"""Least error, as a share of the weights' energy, that a table has beyond the best one for its groups: 2 bits
have an error of 0.07 in all, 4 bits of 0.005."""
_OTHER_SCALE = 1.25
_BETTER = 0.5  # the other table leaves at most this share of the error


@dataclass(frozen=True)
class _Fit:
    """Of one width: `count` and `mean` [16, 2^bits] of the original weights, in units of their row's scale,
    by table and code; `energy` of all of them."""

    count: Float64
    mean: Float64
    energy: float


def check_tables(linear: StoredLinear) -> Iterator[Finding]:
    """Of every width below eight bits."""
    original, sound = _comparable(linear)
    for bits in table_widths(linear.packed.bands):
        tables = linear.packed.tables_of(bits)[:, : 1 << bits].astype(np.float64)
        fit = _fit(linear.packed, original, sound, bits)
        wrong = _exchanged(fit, tables)
        if wrong:
            shown = ", ".join(f"{i} (its weights fit table {j})" for i, j in wrong[:4])
            said = f"tables of its {bits}-bit weights are swapped: rows {shown}"
            details: dict[str, object] = {"bits": bits, "tables": [list(pair) for pair in wrong]}
        elif entries := _entries(fit, tables):
            said = (
                f"entries of tables {', '.join(map(str, entries[:4]))} of its {bits}-bit weights are swapped"
            )
            details = {"bits": bits, "tables": entries}
        else:
            continue
        yield Finding(
            check="tables",
            place=linear.name,
            severity="alarm",
            cause=said,
            mend=f"quantise {linear.name} again from the reference",
            change=Requantised((linear.name,)),
            details=details,
        )


def _comparable(linear: StoredLinear) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The original as long as the stored rows typically are, fp32 [N, K], and which rows bool [N] are about
    that long: what is wrong with a scale is not for this check."""
    gain = linear.likeness.gain
    if linear.likeness.typical < ALIKE:  # then gains say nothing
        return linear.original.numpy(), np.ones(linear.packed.rows, bool)
    typical = float(gain.abs().median())
    sound = (gain > typical / _OTHER_SCALE) & (gain < typical * _OTHER_SCALE)
    return linear.original.numpy() * np.float32(typical), sound.numpy()


def _fit(
    packed: PackedLinear, original: npt.NDArray[np.float32], sound: npt.NDArray[np.bool_], bits: int
) -> _Fit:
    entries = 1 << bits
    count, total, energy = np.zeros(TABLES * entries), np.zeros(TABLES * entries), 0.0
    for band, span in zip(packed.bands, packed.spans(), strict=True):
        if band.bits != bits:
            continue
        rows = slice(band.start, band.start + band.rows)
        codes = unpack_codes(
            packed.codes[span.codes : span.codes + span.codes_bytes], band.rows, packed.cols, bits
        )
        index = unpack_index(packed.index[span.index : span.index + span.index_bytes], band.rows, packed.cols)
        scale = packed.scale[rows, None]
        usable = np.isfinite(scale) & (scale != 0)
        units = np.where(usable, original[rows] / np.where(usable, scale, 1), 0).astype(np.float64)
        place = (np.repeat(index.astype(np.int64), GROUP, axis=1)[:, : packed.cols] * entries + codes)[
            sound[rows]
        ].ravel()
        units = units[sound[rows]]
        count += np.bincount(place, minlength=TABLES * entries)
        total += np.bincount(place, units.ravel(), TABLES * entries)
        energy += float(np.square(units).sum())
    shape = (TABLES, entries)
    return _Fit(count.reshape(shape), (total / np.maximum(count, 1)).reshape(shape), energy)


def _errors(fit: _Fit, tables: Float64) -> Float64:
    """[i, j]: squared error that the groups of table i would have beyond rounding, decoded by table j."""
    away = tables[None] - fit.mean[:, None]
    return np.asarray((fit.count[:, None] * np.square(away)).sum(axis=2))


def _exchanged(fit: _Fit, tables: Float64) -> list[tuple[int, int]]:
    """(table, the one that fits its groups)."""
    errors = _errors(fit, tables)
    own, best = errors.diagonal(), errors.argmin(axis=1)
    least = errors[np.arange(TABLES), best]
    share = fit.count.sum(axis=1) / max(1.0, fit.count.sum())
    wrong = (own - least > _EXCESS * fit.energy * share) & (least < _BETTER * own)
    return [(int(i), int(best[i])) for i in np.flatnonzero(wrong & (best != np.arange(TABLES)))]


def _entries(fit: _Fit, tables: Float64) -> list[int]:
    """Tables whose entries fit better in another order: that of the weights they stand for."""
    found = []
    for i, (count, mean, table) in enumerate(zip(fit.count, fit.mean, tables, strict=True)):
        used = count > 0
        ordered = np.empty_like(table[used])
        ordered[np.argsort(mean[used])] = np.sort(table[used])
        own = float((count[used] * np.square(table[used] - mean[used])).sum())
        least = float((count[used] * np.square(ordered - mean[used])).sum())
        share = count.sum() / max(1.0, fit.count.sum())
        if own - least > _EXCESS * fit.energy * share and least < _BETTER * own:
            found.append(i)
    return found
