"""Tables of the NPU's look-up stage, solved for: contents, range and scale that make the largest error least.

The stage takes x to an index of 32 units a segment, index = x * multiplier + addition, and interpolates
between 513 entries on each side of 0; the sign of x * multiplier chooses the side [H: GRN, npu notes on the
DPU's LUT]. An entry q stands for (q + offset) * 2^-exponent. Known faults of the stage are avoided by
construction:

- an entry of 0 reads as about 4.0: entries are 1 or more;
- exactly flat runs give spikes: neighbouring entries always differ;
- a negative offset gives a spike near x = 0: the offset is 0 or 1;
- which side counts follows the sign of x, not of the index: tables either cross 0 without an addition, or
  have one side only, for inputs of one sign (where GRN shifts positive inputs with the addition).

Inputs beyond the range never reach the extrapolation that has faults of its own: the first stage of the same
program clamps them at `least` or `most`; above a gate the last entry holds, as in GRN's sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import erfc, floor, log2, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError

ENTRIES: Final = 513
SEGMENTS: Final = ENTRIES - 1
SEGMENT: Final = 32  # index units of a segment: the select of 5 that GRN measured
REACH: Final = SEGMENTS * SEGMENT  # index units of one side
LARGEST_ENTRY: Final = 32767
# Ratios of the ends of one table of a power: up to the first its error is below 1 % (as GRN found), up to the
# second below 5 %.
FINE_RATIO: Final = 128.0
LARGEST_RATIO: Final = 512.0
# Index units of x are an fp16, so steps of a table are not finer than this.
FINEST_STEP: Final = SEGMENT / 65504.0
SIGMOID_TAIL: Final = 12.0  # beyond it x * sigmoid(x) differs from its end by less than fp16 rounding
GAUSS_TAIL: Final = 5.0
EXP_TAIL: Final = 16.0
_CANDIDATES: Final = np.arange(-3, 4)
_POINTS: Final = np.linspace(0.0, 1.0, 9)
LARGEST_HALF: Final = 65504.0
FP16_END: Final = 65520.0  # from here on a number rounds to infinity

Floats = NDArray[np.float64]
Halves = NDArray[np.float16]
Function = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Table:
    """One solved table for fp16 inputs in [`low`, `high`].

    `negative` and `positive` are the entries of the two sides (LE and LO), 1 to 32767. `multiplier` is an
    fp16, `addition` an fp32. `least` and `most` are what the first stage clamps inputs to (at most one of
    them); None: no clamp. `holds_above`: inputs above the range safely take the last entry, as a gate that
    has reached 1. `function` is what the table stands for, for tests and measurements.
    """

    name: str
    low: float
    high: float
    negative: tuple[int, ...]
    positive: tuple[int, ...]
    multiplier: float
    addition: float
    offset: int
    exponent: int
    least: float | None
    most: float | None
    holds_above: bool
    function: Function

    def check(self, x: NDArray[np.floating]) -> None:
        """Raises NpuError when an input is no number or lies outside the range and is not clamped safely."""
        bad = ~np.isfinite(x)
        if self.least is None:
            bad |= x < self.low
        if self.most is None and not self.holds_above:
            bad |= x > self.high
        if bad.any():
            raise NpuError(
                f"an input of {self.name} is {float(x[bad].ravel()[0]):g}, expected {self.low:g} to "
                f"{self.high:g}, "
                "the range that its table was solved for; calibrate on text that reaches it"
            )


def look_up(table: Table, x: NDArray[np.float32], nearest: bool = False) -> NDArray[np.float32]:
    """What the stage gives for fp32 `x` [any shape], before it is stored: the chip's arithmetic in NumPy.

    `nearest`: interpolated values are rounded to nearest even instead of down; which the chip does is not
    known [?], and the errors stated in this package hold for both.
    """
    if table.least is not None:
        x = np.maximum(x, np.float32(table.least))
    if table.most is not None:
        x = np.minimum(x, np.float32(table.most))
    product = x * np.float32(table.multiplier)
    index = (product + np.float32(table.addition)).astype(np.float64)
    entries = np.array((table.negative, table.positive), np.int64)
    side = np.where(product < 0, 0, 1)
    place = np.clip(index / SEGMENT + np.where(side == 0, SEGMENTS, 0), 0, SEGMENTS)
    left = np.minimum(np.floor(place).astype(np.int64), SEGMENTS - 1)
    first = entries[side, left]
    rise = (entries[side, left + 1] - first) * (place - left)
    whole = first + (np.rint(rise) if nearest else np.floor(rise))
    return _decoded(whole, table.offset, table.exponent).astype(np.float32)


def errors(table: Table) -> tuple[float, float]:
    """(largest, mean) difference from the function over every fp16 of [low, high], stored as fp16.

    The larger of both roundings of the interpolation.
    """
    x = every_half(table.low, table.high)
    exact = table.function(x.astype(np.float64))
    found = [look_up(table, x.astype(np.float32), nearest).astype(np.float16) for nearest in (False, True)]
    differences = [np.abs(y.astype(np.float64) - exact) for y in found]
    return max(float(d.max()) for d in differences), max(float(d.mean()) for d in differences)


def every_half(low: float, high: float) -> Halves:
    """Every finite fp16 from `low` to `high`, rising."""
    found = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = found[np.isfinite(found)]
    return np.sort(found[(found.astype(np.float64) >= low) & (found.astype(np.float64) <= high)])


def table_faults(values: NDArray[np.int64], offset: int) -> Iterator[tuple[str, str, str]]:
    """(fault, register, text) of what hardware gets wrong with tables [2, 513] [H]; zero, flat or offset."""
    if (values == 0).any():
        yield "zero", "DPU_LUT_ACCESS_DATA", "a table has entries of 0, expected 1 or more"
    same = np.diff(values, axis=1) == 0
    if (same[:, :-1] & same[:, 1:]).any():
        yield "flat", "DPU_LUT_ACCESS_DATA", "three equal entries follow each other"
    if offset < 0:
        yield "offset", "DPU_OUT_CVT_OFFSET", "the output offset is negative"


@lru_cache(maxsize=32)
def sigmoid_table(low: float, high: float) -> Table:
    """The gate of SiLU, 1 / (1 + e^-x), on the range [low, high] that calibration saw.

    What is made least is the error of x * gate. From 12 on any finite input is safe: below -12 the product is
    clamped, above 12 the gate holds at 1.
    """
    return _gate("SiLU", _sigmoid, low, high, SIGMOID_TAIL)


@lru_cache(maxsize=32)
def gauss_table(low: float, high: float) -> Table:
    """The gate of GELU, the normal distribution's share below x (exact form with erf), as `sigmoid_table`."""
    return _gate("GELU", _gauss, low, high, GAUSS_TAIL)


@lru_cache(maxsize=4)
def half_exp_table() -> Table:
    """e^(x / 2) for x in [-16, 0], exactly 1 at 0; inputs below are clamped at -16.

    Its square is e^x with a small error relative to e^x: of 15 bits alone nothing would be left below e^-10.
    """
    multiplier = float(np.float16(REACH / EXP_TAIL))
    negative = _solved(
        lambda x: np.exp(x / 2), np.linspace(-EXP_TAIL, 0, ENTRIES), 1, 15, lambda x: 1 + 0 * x
    )
    return Table(
        name="exp",
        low=-EXP_TAIL,
        high=0.0,
        negative=negative,
        positive=_falling(),
        multiplier=multiplier,
        addition=-0.0,
        offset=1,
        exponent=15,
        least=-EXP_TAIL,
        most=None,
        holds_above=False,
        function=lambda x: np.exp(x / 2),
    )


@lru_cache(maxsize=32)
def power_tables(power: float, low: float, high: float) -> tuple[Table, ...]:
    """x^power (-1: reciprocal, -0.5: reciprocal square root) on 0 < low <= x <= high.

    One table, or two whose product is the function: the first sees min(x, m), the second max(x, m), scaled by
    m^-power, with m = sqrt(low * high). Relative errors of each are made least; they are below 1 % where each
    covers a ratio of 128, and below 5 % at 512, the most; from 1 / 2048 up to four times that, where steps
    cannot be as fine, below 10 % (`coarse` knows both). A step of Newton squares them. Raises
    NpuError for a range that is not positive, below 1 / 2048, beyond fp16, or wider than 512 squared.
    """
    name = {-1.0: "the reciprocal", -0.5: "the reciprocal square root"}.get(power, f"the power {power:g}")
    if not FINEST_STEP <= low <= high <= LARGEST_HALF:
        raise NpuError(
            f"the range of {name} is {low:g} to {high:g}, expected numbers from {FINEST_STEP:g} to "
            f"{LARGEST_HALF:g}; scale its inputs by a power of two"
        )
    low = _half_below(low)
    high = max(_half_above(high), _half_above(low * (1 + 2.0**-9)))
    if high / low <= FINE_RATIO:
        return (_power(name, power, low, high, 1.0, None, None),)
    if high / low > LARGEST_RATIO**2:
        raise NpuError(
            f"the range of {name} is {low:g} to {high:g}, a ratio of {high / low:.0f}, expected at most "
            f"{LARGEST_RATIO**2:.0f}; scale its inputs, or raise the least one with an epsilon"
        )
    middle = float(np.float16(sqrt(low * high)))
    return (
        _power(name, power, low, middle, 1.0, None, middle),
        _power(name, power, middle, high, middle**-power, middle, None),
    )


def coarse(table: Table) -> bool:
    """Whether a table of a power is too coarse for 1 %: its first step is over a quarter of its start."""
    return SEGMENT / table.multiplier > table.low * FINE_RATIO / SEGMENTS


def _power(
    name: str, power: float, low: float, high: float, scale: float, least: float | None, most: float | None
) -> Table:
    def function(x: Floats) -> Floats:
        return np.asarray(scale * x**power)

    multiplier = min(_half_below(REACH / (high - low)), LARGEST_HALF)
    nodes = low + np.arange(ENTRIES) * SEGMENT / multiplier
    largest = float(function(np.array([low]))[0])
    exponent = max(0, floor(log2((LARGEST_ENTRY + 1) / largest)))
    positive = _solved(function, nodes, 1, exponent, lambda x: 1 / function(x))
    return Table(
        name=name,
        low=low,
        high=high,
        negative=tuple(range(1, ENTRIES + 1)),
        positive=positive,
        multiplier=multiplier,
        addition=float(np.float32(-low * multiplier)),
        offset=1,
        exponent=exponent,
        least=least,
        most=most,
        holds_above=False,
        function=function,
    )


def _gate(name: str, function: Function, low: float, high: float, tail: float) -> Table:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise NpuError(f"the range of {name} is {low:g} to {high:g}, expected two rising numbers; calibrate")
    reach = min(max(-low, high), tail)
    multiplier = _half_below(REACH / reach)
    reach = REACH / multiplier
    sides = [
        _solved(function, nodes, 0, 15, lambda x: np.maximum(np.abs(x), 0.25))
        for nodes in (np.linspace(-reach, 0, ENTRIES), np.linspace(0, reach, ENTRIES))
    ]
    whole = reach >= tail
    return Table(
        name=name,
        low=-float(_half_below(reach)),
        high=float(_half_below(reach)),
        negative=sides[0],
        positive=sides[1],
        multiplier=multiplier,
        addition=-0.0,
        offset=0,
        exponent=15,
        least=-float(_half_below(reach)) if whole else None,
        most=None,
        holds_above=whole,
        function=function,
    )


def _solved(
    function: Function, nodes: Floats, offset: int, exponent: int, weight: Function
) -> tuple[int, ...]:
    """Entries at `nodes` that make the largest weighted error of the interpolation least.

    Candidates are integers around the value that halves the chord's error (f - f'' step^2 / 16). A first pass
    over the segments finds the least possible maximum, a second the least sum of errors below it; in both,
    neighbours differ and entries are 1 to 32767.
    """
    step = nodes[1] - nodes[0]
    values = function(nodes)
    inner = np.clip(nodes, nodes[1], nodes[-2])
    bend = function(inner - step) - 2 * function(inner) + function(inner + step)
    centre = np.rint((values - bend / 16) * 2.0**exponent - offset).astype(np.int64)
    choices = np.clip(centre[:, None] + _CANDIDATES, 1, LARGEST_ENTRY)
    left, right = choices[:-1, :, None, None], choices[1:, None, :, None]
    rise = (right - left) * _POINTS
    x = nodes[:-1, None] + step * _POINTS
    exact, heavy = function(x)[:, None, None], weight(x)[:, None, None]
    segments = np.zeros((SEGMENTS, len(_CANDIDATES), len(_CANDIDATES)))
    for rounded in (np.floor(rise), np.rint(rise)):
        wrong = np.abs(_decoded(left + rounded, offset, exponent) - exact) * heavy
        segments = np.maximum(segments, wrong.max(axis=-1))
    segments[left[..., 0] == right[..., 0]] = np.inf
    least = _worst_of_best(segments)
    segments[segments > least] = np.inf
    return tuple(int(q) for q in _cheapest(segments, choices))


def _worst_of_best(segments: Floats) -> float:
    """The least maximum of any way through [segments, from, to]."""
    best = np.zeros(segments.shape[1])
    for errors_ in segments:
        best = np.maximum(best[:, None], errors_).min(axis=0)
    return float(best.min())


def _cheapest(segments: Floats, choices: NDArray[np.int64]) -> NDArray[np.int64]:
    """The entries of the way with the least sum."""
    cost = np.zeros(segments.shape[1])
    before = []
    for errors_ in segments:
        through = cost[:, None] + errors_
        before.append(through.argmin(axis=0))
        cost = through.min(axis=0)
    at = int(cost.argmin())
    found = [choices[-1, at]]
    for i in range(len(segments) - 1, -1, -1):
        at = int(before[i][at])
        found.append(choices[i, at])
    return np.array(found[::-1])


def _decoded(entries: Floats, offset: int, exponent: int) -> Floats:
    return (entries + offset) * 2.0**-exponent


def _falling() -> tuple[int, ...]:
    """A side of which only the first entry, 1.0 with an offset of 1, is ever read."""
    return tuple(LARGEST_ENTRY - i for i in range(ENTRIES))


def _half_below(x: float) -> float:
    half = np.float16(min(x, LARGEST_HALF))
    return float(half if float(half) <= x else np.nextafter(half, np.float16(-np.inf)))


def _half_above(x: float) -> float:
    half = np.float16(min(x, LARGEST_HALF))
    return float(half if float(half) >= x else np.nextafter(half, np.float16(np.inf)))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


_ERFC: Final = np.vectorize(erfc, otypes=[np.float64])


def _gauss(x: Floats) -> Floats:
    return np.asarray(_ERFC(-x / sqrt(2)) / 2)
