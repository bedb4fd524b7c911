"""One linear at one width: tables, row scales, rounded codes, and what the result costs, row by row.

A candidate is complete: whichever widths the allocation picks for a linear's bands, their rows are copied
from the candidates as they are. So a new budget needs no new rounding.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rockledge.formats.table import Float32, Int8, UInt8
from rockledge.quantization.rounding.clip import best_of_scales, search_scale
from rockledge.quantization.rounding.codebook import decode, learn_tables, start_scale, start_tables
from rockledge.quantization.rounding.gptq import (
    Feedback,
    Rounded,
    feedback,
    round_to_integers,
    round_to_tables,
)
from rockledge.quantization.rounding.moments import importance
from rockledge.quantization.rounding.nearest import nearest_in_tables, nearest_integers
from rockledge.quantization.rounding.price import row_errors
from rockledge.quantization.steps import Steps
from rockledge.quantization.work.candidate import Candidate

# Every model is rounded to the first; where the budget is low, to two bits as well.
WIDTHS = (3, 4, 8)
NARROW_WIDTHS = (2, *WIDTHS)
# Rows rounded together: bounds the memory an embedding takes. A GPU takes about as long for many as for few.
CHUNK, GPU_CHUNK = 8192, 65536
# Rows the tables are learned from, evenly spread.
_TABLE_ROWS = 512
_NORMAL_KURTOSIS, _KURTOSIS_TOLERANCE = 3.0, 0.05
# What is tried for the row scale, as a share of the one that puts the row's largest weight at the end of
# the range.
_INTEGER_SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
# What is tried for it with tables, as a share of the one that they were made for.
_TABLE_SHARES = (1.0, 0.97, 1.03, 0.94, 1.06)


@dataclass(frozen=True)
class Term:
    """One reason why a linear's errors matter: it is read by inputs with second moments `moments` fp32 [K,
    K] or their diagonal [K], and an error in output n costs `sensitivity[n]` fp32 [N]. A tied embedding has
    two, any other linear one.
    """

    moments: torch.Tensor
    sensitivity: torch.Tensor


def dequantized_rows(candidate: Candidate, rows: slice, device: torch.device) -> torch.Tensor:
    """Some rows of a candidate as real weights, fp32 [rows, K] on `device`."""

    def there(array: UInt8 | Int8 | Float32) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    codes = there(candidate.codes[rows])
    if candidate.index is None or candidate.tables is None:
        w8 = codes.view(torch.int8)
    else:
        w8 = decode(there(candidate.index[rows]), codes, there(candidate.tables))
    return w8.float() * there(candidate.scale[rows, None])


class Rounding:
    """Rounds one linear at several widths; what does not depend on the width is computed once."""

    def __init__(
        self,
        weights: torch.Tensor,
        terms: Sequence[Term],
        steps: Steps,
        how: Feedback | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """`weights` fp32 [N, K]. `how` errors are passed on is that of the joint moments, where the caller
        has it already; rounding to the nearest needs none. `chunk` rows are rounded together."""
        self._steps = steps
        self._chunk = chunk
        self._weights = weights
        self._terms = terms
        self._moments = joint_moments(terms)
        self._how = None
        self._importance = importance(self._moments)
        if steps.rounding == "gptq":
            self._how = how or feedback(self._moments, activation_order=steps.activation_order)
            self._importance = self._how.importance

    def at(self, bits: int) -> Candidate:
        """The candidate of one width, 2, 3, 4 or 8."""
        return self._integers() if bits == 8 else self._tables(bits)

    def _tables(self, bits: int) -> Candidate:
        tables = start_tables(bits).round().to(torch.int8).to(self._weights.device)
        if self._steps.tables == "learned" and not nearly_normal(self._weights):
            tables = learn_tables(_sample(self._weights), bits, self._importance).tables
        scale = start_scale(self._weights)
        if not self._steps.clip:
            scale = _largest(self._weights) / int(tables.abs().max())

        def rounding(w: torch.Tensor, s: torch.Tensor) -> Rounded:
            if self._how is None:
                return nearest_in_tables(w, s, tables, self._importance)
            return round_to_tables(w, s, tables, self._how)

        tries = self._steps.scale_tries if self._steps.clip and self._how is not None else 1
        return self._rounded(bits, scale, rounding, tables, _TABLE_SHARES[:tries])

    def _integers(self) -> Candidate:
        base = _largest(self._weights) / 127
        shrinks = _INTEGER_SHRINKS if self._steps.clip else (1.0,)
        scale = search_scale(
            self._weights, base, shrinks, self._importance, lambda u: u.round().clamp_(-127, 127)
        )

        def rounding(w: torch.Tensor, s: torch.Tensor) -> Rounded:
            return nearest_integers(w, s) if self._how is None else round_to_integers(w, s, self._how)

        return self._rounded(8, scale, rounding, None)

    def _rounded(
        self,
        bits: int,
        scale: torch.Tensor,
        rounding: Callable[[torch.Tensor, torch.Tensor], Rounded],
        tables: torch.Tensor | None,
        shares: Sequence[float] = (1.0,),
    ) -> Candidate:
        columns: dict[str, list[torch.Tensor]] = defaultdict(list)
        chunk = max(1, self._chunk // len(shares))
        for first in range(0, self._weights.shape[0], chunk):
            part = slice(first, first + chunk)
            rounded, fitted = best_of_scales(
                self._weights[part], scale[part], shares, self._moments, rounding
            )
            columns["scale"].append(fitted)
            columns["prices"].append(self._prices(part, rounded.w8, fitted))
            if rounded.codes is None or rounded.index is None:
                columns["codes"].append(rounded.w8.to(torch.int8).view(torch.uint8))
            else:
                columns["codes"].append(rounded.codes)
                columns["index"].append(rounded.index)
        whole = {name: torch.cat(parts).cpu().numpy() for name, parts in columns.items()}
        return Candidate(
            bits=bits,
            codes=whole["codes"],
            index=whole.get("index"),
            tables=None if tables is None else tables.cpu().numpy(),
            scale=whole["scale"],
            prices=whole["prices"],
        )

    def _prices(self, part: slice, w8: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        delta = w8 * scale[:, None] - self._weights[part]
        total = torch.zeros_like(scale)
        for term in self._terms:
            total += 0.5 * term.sensitivity[part] * row_errors(delta, term.moments)
        return total


def nearly_normal(weights: torch.Tensor) -> bool:
    """Whether the rows of a matrix [N, K] are as normal as rotation makes most of them.

    Then the tables learned on normal numbers are good enough: learning again changes the error by less than
    1%.
    """
    sample = _sample(weights)
    units = sample / sample.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-30)
    return abs(float(units.pow(4).mean()) - _NORMAL_KURTOSIS) < _KURTOSIS_TOLERANCE


def _sample(weights: torch.Tensor) -> torch.Tensor:
    """Some rows, evenly spread."""
    return weights[:: -(-weights.shape[0] // _TABLE_ROWS)]


def _largest(weights: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of every row, above 0: fp32 [N]."""
    largest: torch.Tensor = torch.linalg.vector_norm(weights, ord=torch.inf, dim=1)
    return largest.clamp_min(1e-30)


def joint_moments(terms: Sequence[Term]) -> torch.Tensor:
    """One second-moment matrix for all rows: the terms' moments, each weighted by its mean sensitivity."""
    if len(terms) == 1:
        return terms[0].moments
    weights = [float(term.sensitivity.mean()) for term in terms]
    total = max(sum(weights), 1e-30)
    return sum(
        (term.moments * (weight / total) for term, weight in zip(terms, weights, strict=True)),
        start=torch.zeros_like(terms[0].moments),
    )
