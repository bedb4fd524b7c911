"""The goals of the accuracy table, and the curve of llama.cpp that most of them are held against.

The envelope is the lower convex hull of (bits, log KL) over all its files: between two files that are on it,
log KL is interpolated over actual bits, as a mixture of their types would about reach. A file above the hull
is not a bar, whatever its name.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.accuracy_rows import Row

OURS, THEIRS = "rockledge", "llama.cpp"
UNIFORM = " uniform"

Point = tuple[float, float]
"""Bits a weight, mean KL in nats."""


@dataclass(frozen=True)
class Goal:
    """`value` should be at most `limit`; None where a row that it needs is missing or no file is so small."""

    model: str
    goal: str
    value: float | None
    limit: float | None

    @property
    def met(self) -> bool | None:
        """None: could not be judged."""
        return None if self.value is None or self.limit is None else self.value <= self.limit


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The points on the lower convex hull in (bits, log KL), from the smallest file to the most accurate."""
    best: list[Point] = []
    for bits, kl in sorted(points):
        if best and kl >= best[-1][1]:
            continue
        while len(best) > 1 and _above(best[-2], best[-1], (bits, kl)):
            best.pop()
        best.append((bits, kl))
    return best


def at(hull: Sequence[Point], bits: float) -> float | None:
    """KL of the envelope at `bits`: log-linear in between, flat above its end, None below its start."""
    if not hull or bits < hull[0][0]:
        return None
    for (low, first), (high, second) in pairwise(hull):
        if bits <= high:
            share = (bits - low) / (high - low)
            return math.exp((1 - share) * math.log(first) + share * math.log(second))
    return hull[-1][1]


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Every goal for every model of the table."""
    return [goal for model in dict.fromkeys(row.model for row in rows) for goal in _of(model, rows)]


def _of(model: str, rows: Sequence[Row]) -> Iterator[Goal]:
    ours = {row.name: row for row in rows if row.model == model and row.engine == OURS}
    theirs = [row for row in rows if row.model == model and row.engine == THEIRS]
    hull = lower_hull([(row.bits_per_weight, row.kl_mean_nats) for row in theirs])
    for name in ("4.5", "5", "5.5"):
        row = ours.get(name)
        bar = None if row is None else at(hull, row.bits_per_weight)
        limit = None if bar is None else 0.6 * bar
        yield Goal(model, f"{name} bits: KL at most 0.6 x llama.cpp's envelope", _kl(row), limit)
    for name in ("4.25", "3.5"):
        row = ours.get(name)
        most = math.inf if row is None else row.bits_per_weight + 0.5
        others = [other.kl_mean_nats for other in theirs if other.bits_per_weight <= most]
        limit = min(others) if others and row is not None else None
        yield Goal(model, f"{name} bits: KL below llama.cpp's best file of 0.5 bits more", _kl(row), limit)
    eight = ours.get("8")
    q8 = next((row.kl_mean_nats for row in theirs if row.name == "Q8_0"), None)
    yield Goal(model, "8 bits: KL at most 2.5 x Q8_0", _kl(eight), None if q8 is None else 2.5 * q8)
    yield Goal(model, "8 bits: KL at most 0.01", _kl(eight), 0.01)
    for name, gain in (("3.5", 0.2), ("4.25", 0.1)):
        uniform = ours.get(name + UNIFORM)
        limit = None if uniform is None else (1 - gain) * uniform.kl_mean_nats
        yield Goal(
            model,
            f"{name} bits: KL {gain:.0%} below uniform widths of the same bytes",
            _kl(ours.get(name)),
            limit,
        )


def _kl(row: Row | None) -> float | None:
    return None if row is None else row.kl_mean_nats


def _above(first: Point, middle: Point, last: Point) -> bool:
    """Whether the middle point lies on or above the line between its neighbours in (bits, log KL)."""
    (x0, y0), (x1, y1), (x2, y2) = ((bits, math.log(max(kl, 1e-12))) for bits, kl in (first, middle, last))
    return (y1 - y0) * (x2 - x0) >= (y2 - y0) * (x1 - x0)
