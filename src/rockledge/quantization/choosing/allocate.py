"""Which width every band gets: a multiple-choice knapsack under bytes and milliseconds, solved exactly.

Each band takes one of its options; the sum of prices is minimal while the sums of bytes and of milliseconds
stay within the budget. The prices come from `price.py`, so a new budget is solved in seconds without a new
calibration.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, vstack

from rockledge.errors import BudgetError
from rockledge.units import show_size

# The solver's relative gap and patience: at thousands of bands the last thousandth is not worth a minute.
_GAP = 1e-3
_SECONDS = 10.0


@dataclass(frozen=True)
class Option:
    """One width of a band: predicted divergence in nats a token, bytes stored, milliseconds a decoded
    token."""

    bits: int
    price: float
    bytes: int
    milliseconds: float


@dataclass(frozen=True)
class Band:
    """Rows that get one width together, and what each width would cost."""

    linear: str
    start: int
    rows: int
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Budget:
    """Upper limits on the sums over all bands; None is no limit."""

    bytes: int | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Allocation:
    """One option a band, in the bands' order, and the sums."""

    options: tuple[Option, ...]

    @property
    def price(self) -> float:
        return sum(option.price for option in self.options)

    @property
    def bytes(self) -> int:
        return sum(option.bytes for option in self.options)

    @property
    def milliseconds(self) -> float:
        return sum(option.milliseconds for option in self.options)


def allocate(bands: Sequence[Band], budget: Budget) -> Allocation:
    """The cheapest choice of one option a band within `budget`.

    Raises BudgetError when there is none; its sentence names the nearest budget that can be met.
    """
    _check_possible(bands, budget)
    # Bytes are integers but the solver works in floats: should rounding overshoot, ask for a little less.
    limit = budget.bytes
    for _ in range(4):
        choice = _solve(bands, "price", Budget(limit, budget.milliseconds))
        if choice is None:
            break
        if budget.bytes is None or limit is None or choice.bytes <= budget.bytes:
            return choice
        limit -= choice.bytes - budget.bytes
    raise BudgetError(_both_limits(bands, budget))


def _check_possible(bands: Sequence[Band], budget: Budget) -> None:
    least_bytes = sum(min(option.bytes for option in band.options) for band in bands)
    if budget.bytes is not None and least_bytes > budget.bytes:
        raise BudgetError(
            f"the weights do not fit in {show_size(budget.bytes)}, the narrowest choice takes "
            f"{show_size(least_bytes)}; ask for at least that"
        )
    least_time = sum(min(option.milliseconds for option in band.options) for band in bands)
    if budget.milliseconds is not None and least_time > budget.milliseconds:
        raise BudgetError(
            f"a token cannot take only {budget.milliseconds:.3f} ms, the fastest choice takes "
            f"{least_time:.3f} ms; ask for at least {least_time:.3f} ms"
        )


def _both_limits(bands: Sequence[Band], budget: Budget) -> str:
    fastest = _solve(bands, "milliseconds", Budget(budget.bytes))
    nearest = fastest.milliseconds if fastest is not None else float("nan")
    return (
        f"{show_size(budget.bytes or 0)} and {budget.milliseconds:.3f} ms can be met alone but not together; "
        f"within that size the fastest choice takes {nearest:.3f} ms, so ask for that or for a larger size"
    )


def _solve(bands: Sequence[Band], goal: str, budget: Budget) -> Allocation | None:
    """The mixed-integer program: one 0/1 variable an option; None when nothing feasible was found."""
    options = [option for band in bands for option in band.options]
    owner = np.repeat(np.arange(len(bands)), [len(band.options) for band in bands])
    cost = np.array([getattr(option, goal) for option in options], dtype=np.float64)
    one_each = csr_matrix((np.ones(len(options)), (owner, np.arange(len(options)))))
    rows, low, high = [one_each], [np.ones(len(bands))], [np.ones(len(bands))]
    for limit, name in ((budget.bytes, "bytes"), (budget.milliseconds, "milliseconds")):
        if limit is not None:
            # Scaled so that the right-hand side is 1e3: the solver's tolerances are absolute.
            unit = max(float(limit), 1e-9) / 1e3
            rows.append(csr_matrix([[getattr(option, name) / unit for option in options]]))
            low.append(np.array([-np.inf]))
            high.append(np.array([limit / unit]))
    scale = max(float(np.max(np.abs(cost))), 1e-30)
    with _printing_to_stderr():
        result = milp(
            cost / scale,
            integrality=np.ones(len(options), np.int64),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(vstack(rows), np.concatenate(low), np.concatenate(high)),
            options={"mip_rel_gap": _GAP, "time_limit": _SECONDS},
        )
    if result.x is None:
        return None
    return Allocation(_picked(bands, result.x))


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """The solver sometimes prints to the process's stdout, where a command may have to print exactly one JSON
    object."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _picked(bands: Sequence[Band], x: NDArray[np.float64]) -> tuple[Option, ...]:
    chosen, at = [], 0
    for band in bands:
        values = x[at : at + len(band.options)]
        chosen.append(band.options[int(np.argmax(values))])
        at += len(band.options)
    return tuple(chosen)
