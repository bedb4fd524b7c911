"""Scales of int32 sums to int8, fitted to the NPU's own rule: integer multiplier, shift, ties and saturation.

The output conversion gives saturate8(round((sum + bias) * scale / 2^shift) + offset), scale up to 32,767 [H:
GRN2]; the first stage before it can have a multiplier for each channel, and one shift for all of them: v =
saturate32( round((sum + bias) * multiplier / 2^stage_shift)) [H: GRN2]. How ties round is disputed [X]:
`Rule` says it, and a fit reports how many of the sums it would change.

The result is a rising function of the sum with at most 255 steps. So errors over a whole range are computed
exactly from the sums at which it steps, whatever the range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from math import floor, log2
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

LARGEST_SCALE: Final = 32767
LARGEST_SHIFT: Final = 46  # so that a sum of 32 bits times a scale is not all shifted out
IDENTITY: Final = (0x4000, 14)  # scale and shift of a conversion that changes nothing [H: ORK]
_LEVELS: Final = np.arange(-127, 128)
_WINDOW: Final = 512
_INT32: Final = (-(1 << 31), (1 << 31) - 1)


class Rounding(Enum):
    """Of a requantised integer [X]. Bit 30 of OUT_CVT_SHIFT asks for ties away from zero in any case."""

    TIES_EVEN = "ties-even"
    TIES_UP = "ties-up"
    TRUNCATE = "truncate"


@dataclass(frozen=True)
class Rule:
    """What is uncertain of the conversion: how it rounds; `ties_away`: bit 30 is set, and honoured."""

    rounding: Rounding = Rounding.TIES_EVEN
    ties_away: bool = False


STANDARD: Final = Rule()


@dataclass(frozen=True)
class Fit:
    """A fitted conversion, and how good it is over the calibrated sums.

    `bias` int64 [channels], within int32. `multipliers` int64 [channels] and `stage_shift` are the first
    stage's; None and 0 where one scale serves the tensor. `ties_away` is bit 30. `largest_error` and
    `root_mean_square` [channels], in units of the int8 result, are against saturate8 of the real number, sums
    of the range being equally likely; 0.5 and 0.289 are those of perfect rounding. `depends` says for each
    switch that published work leaves open the share of sums whose result another value changes; 0: none can.
    """

    bias: Integers
    multipliers: Integers | None
    stage_shift: int
    scale: int
    shift: int
    offset: int
    ties_away: bool
    largest_error: Floats
    root_mean_square: Floats
    depends: Mapping[str, float]


def requantised(sums: Integers, fit: Fit, rule: Rule) -> NDArray[np.int8]:
    """int8 [rows, channels] of int sums [rows, channels]: the chip's rule in NumPy."""
    values = sums.astype(np.int64) + fit.bias
    if fit.multipliers is not None:
        # Bit 30 belongs to the output conversion alone.
        values = _shifted(values * fit.multipliers, fit.stage_shift, replace(rule, ties_away=False))
        values = np.clip(values, *_INT32)
    values = _shifted(values * fit.scale, fit.shift, rule) + fit.offset
    return np.clip(values, -128, 127).astype(np.int8)


def fit_tensor(
    multiplier: float,
    low: int,
    high: int,
    *,
    bias: Floats | None = None,
    offset: int = 0,
    rule: Rule = STANDARD,
) -> Fit:
    """The scale and shift for one real `multiplier` and sums of `low` to `high` that make the error least.

    `bias` [channels] is in units of the sums, default one channel without. Of all scales whose result is
    within a step of the real one over the range (at most 512 to each side) the one with the least mean square
    is taken; of several as good, the one with the fewest ties, then the nearest. Where the rule truncates,
    half a step goes into the bias. Raises NpuError for a multiplier that is not positive or that no scale and
    shift come near, and for sums that leave int32 with their bias.
    """
    real = np.zeros(1) if bias is None else np.asarray(bias, np.float64)
    whole = _biases(real, np.full(len(real), multiplier), rule)
    shift = _shift(multiplier)
    steps = max(1.0, min(256.0, multiplier * max(abs(low), abs(high), 1)))
    middle = round(multiplier * 2.0**shift)
    reach = min(_WINDOW, int(middle / steps) + 1)
    scales = np.unique(np.clip(np.arange(middle - reach, middle + reach + 1), 1, LARGEST_SCALE))
    scales = scales[np.argsort(np.abs(scales - multiplier * 2.0**shift), kind="stable")]
    targets = _Targets(np.full(len(scales), multiplier), np.full(len(scales), real[0]), offset, low, high)
    candidates = Fit(
        bias=np.full(len(scales), whole[0]),
        multipliers=None,
        stage_shift=0,
        scale=0,
        shift=shift,
        offset=offset,
        ties_away=rule.ties_away,
        largest_error=np.zeros(0),
        root_mean_square=np.zeros(0),
        depends=MappingProxyType({}),
    )
    best = _best(candidates, scales, targets, rule)
    chosen = replace(candidates, bias=whole, scale=int(scales[best]))
    return _judged(chosen, _Targets(np.full(len(real), multiplier), real, offset, low, high), rule)


def fit_channels(
    multipliers: Floats,
    low: int,
    high: int,
    *,
    bias: Floats | None = None,
    offset: int = 0,
    rule: Rule = STANDARD,
) -> Fit:
    """The same with one real multiplier for each channel, which the first stage holds; the shift is common.

    The shift is the largest that the largest multiplier allows; each channel takes the best of the integers
    around its own. Channels far below the largest have few bits, which `root_mean_square` shows. Raises
    NpuError as `fit_tensor`.
    """
    wide = np.asarray(multipliers, np.float64)
    real = np.zeros(len(wide)) if bias is None else np.asarray(bias, np.float64)
    for multiplier in wide:
        _shift(float(multiplier))
    whole = _biases(real, wide, rule)
    shift = _shift(float(wide.max()))
    fit = Fit(
        bias=whole,
        multipliers=np.zeros(len(wide), np.int64),
        stage_shift=shift,
        scale=IDENTITY[0],
        shift=IDENTITY[1],
        offset=offset,
        ties_away=rule.ties_away,
        largest_error=np.zeros(0),
        root_mean_square=np.zeros(0),
        depends=MappingProxyType({}),
    )
    targets = _Targets(wide, real, offset, low, high)
    centre = np.rint(wide * 2.0**shift).astype(np.int64)
    tried = [replace(fit, multipliers=np.clip(centre + step, 1, LARGEST_SCALE)) for step in (0, -1, 1)]
    squares = np.stack([targets.squares(_steps(each, low, high, rule)) for each in tried])
    ties = np.stack(
        [_moved(each, low, high, rule, replace(rule, rounding=_OTHER_TIE[rule.rounding])) for each in tried]
    )
    best = _ranked(squares, ties)
    found = np.stack([each.multipliers for each in tried if each.multipliers is not None])
    return _judged(replace(fit, multipliers=found[best, np.arange(len(wide))]), targets, rule)


@dataclass(frozen=True)
class _Targets:
    """Real results, saturate8((sum + bias) * multiplier + offset), for sums of low to high; [channels]."""

    multiplier: Floats
    bias: Floats
    offset: int
    low: int
    high: int

    def squares(self, steps: Integers) -> Floats:
        """The mean square of result - target over the range, [channels], exactly."""
        total = np.zeros(len(self.multiplier))
        for first, end, slope, constant in self._zones():
            starts, ends, levels = _runs(steps, first, end)
            count = (ends - starts).astype(np.float64)
            centre = (starts + ends - 1) / 2
            away = levels - constant[:, None] - slope[:, None] * centre
            total += (count * (away**2 + slope[:, None] ** 2 * (count**2 - 1) / 12)).sum(axis=1)
        return np.asarray(total / (self.high - self.low + 1))

    def largest(self, steps: Integers) -> Floats:
        """The largest difference from the target, [channels]."""
        found = np.zeros(len(self.multiplier))
        for first, end, slope, constant in self._zones():
            starts, ends, levels = _runs(steps, first, end)
            for at in (starts, ends - 1):
                away = np.abs(levels - constant[:, None] - slope[:, None] * at)
                found = np.maximum(found, np.where(ends > starts, away, 0).max(axis=1))
        return found

    def _zones(self) -> tuple[tuple[Integers, Integers, Floats, Floats], ...]:
        """(first sum, end, slope, constant) where the target is -128, linear and 127."""
        flat = np.zeros_like(self.multiplier)
        linear = self.bias * self.multiplier + self.offset
        ends = []
        for level in (-128, 127):
            at = np.ceil((level - self.offset) / self.multiplier - self.bias)
            ends.append(np.clip(at, self.low, self.high + 1).astype(np.int64))
        low, high = np.full_like(ends[0], self.low), np.full_like(ends[0], self.high + 1)
        return (
            (low, ends[0], flat, flat - 128),
            (ends[0], ends[1], self.multiplier, linear),
            (ends[1], high, flat, flat + 127),
        )


_OTHER_TIE: Final = {
    Rounding.TIES_EVEN: Rounding.TIES_UP,
    Rounding.TIES_UP: Rounding.TIES_EVEN,
    Rounding.TRUNCATE: Rounding.TRUNCATE,
}


def _runs(steps: Integers, first: Integers, end: Integers) -> tuple[Integers, Integers, Integers]:
    """(starts, ends, levels) [channels, 256] of the runs of equal results between `first` and `end`."""
    inner = np.clip(steps, first[:, None], end[:, None])
    starts = np.concatenate([first[:, None], inner], axis=1)
    ends = np.concatenate([inner, end[:, None]], axis=1)
    return starts, ends, np.arange(-128, 128)[None, :]


def _steps(fit: Fit, low: int, high: int, rule: Rule, scales: Integers | None = None) -> Integers:
    """[channels, 255]: the least sum in low .. high + 1 whose result is at least -127, -126, ... 127.

    The rule inverted, stage by stage. `scales` [channels] replace the fit's.
    """
    scale = np.full(1, fit.scale) if scales is None else scales
    found = _least(_LEVELS[None, :] - fit.offset, scale[:, None], fit.shift, rule)
    if fit.multipliers is not None:
        found = _least(found, fit.multipliers[:, None], fit.stage_shift, replace(rule, ties_away=False))
    return np.asarray(np.clip(found - fit.bias[:, None], low, high + 1))


def _least(levels: Integers, scale: Integers, shift: int, rule: Rule) -> Integers:
    """The least integers x with round(x * scale / 2^shift) >= levels."""
    bound = levels << np.int64(shift)
    if shift and (rule.ties_away or rule.rounding is not Rounding.TRUNCATE):
        bound = bound - (1 << (shift - 1))
        if rule.ties_away:
            bound = bound + (levels <= 0)  # a tie below 0 goes down
        elif rule.rounding is Rounding.TIES_EVEN:
            bound = bound + (levels & 1)  # a tie below an odd number goes down
    return np.asarray(-(-bound // scale))


def _shifted(values: Integers, shift: int, rule: Rule) -> Integers:
    """values / 2^shift, rounded by the rule."""
    if shift == 0:
        return values
    half = np.int64(1) << np.int64(shift - 1)
    if rule.ties_away:
        return np.asarray(np.sign(values) * ((np.abs(values) + half) >> shift))
    if rule.rounding is Rounding.TRUNCATE:
        return np.asarray(values >> shift)
    up = (values + half) >> shift
    if rule.rounding is Rounding.TIES_UP:
        return np.asarray(up)
    tie = (values & ((half << 1) - 1)) == half
    return np.asarray(up - (tie & (up & 1 == 1)))


def _best(fit: Fit, scales: Integers, targets: _Targets, rule: Rule) -> int:
    """Which of the scales is best for channels that are alike."""
    steps = _steps(fit, targets.low, targets.high, rule, scales)
    other = replace(rule, rounding=_OTHER_TIE[rule.rounding])
    moved = np.abs(steps - _steps(fit, targets.low, targets.high, other, scales)).sum(axis=1)
    return int(_ranked(targets.squares(steps)[:, None], moved[:, None])[0])


def _ranked(squares: Floats, ties: Integers) -> Integers:
    """[channels]: of candidates [candidates, channels] as good as the best, the one with the fewest ties."""
    good = squares <= squares.min(axis=0) * (1 + 1e-6)
    return np.asarray(np.where(good, ties, np.iinfo(np.int64).max).argmin(axis=0))


def _moved(fit: Fit, low: int, high: int, rule: Rule, other: Rule) -> Integers:
    """[channels]: sums whose result the other rule changes."""
    return np.asarray(np.abs(_steps(fit, low, high, rule) - _steps(fit, low, high, other)).sum(axis=1))


def _judged(fit: Fit, targets: _Targets, rule: Rule) -> Fit:
    """The fit with its errors and what it depends on."""
    low, high = targets.low, targets.high
    if low > high or low + int(fit.bias.min()) < _INT32[0] or high + int(fit.bias.max()) > _INT32[1]:
        raise NpuError(
            f"sums of {low} to {high} with biases of {int(fit.bias.min())} to {int(fit.bias.max())} do not "
            "rise "
            "within int32; calibrate again, or split the inputs"
        )
    steps = _steps(fit, low, high, rule)
    count = (high - low + 1) * len(fit.bias)
    depends = {}
    for rounding in Rounding:
        if rounding is not rule.rounding:
            other = replace(rule, rounding=rounding)
            depends[f"requantise {rounding.value}"] = float(_moved(fit, low, high, rule, other).sum() / count)
    flipped = replace(rule, ties_away=not rule.ties_away)
    depends["bit 30"] = float(_moved(fit, low, high, rule, flipped).sum() / count)
    # Both shifts are written alike, and the sums were just seen to fit. BS_OW_OP read as value less one would
    # add the sum of the inputs to every channel with a multiplier of its own.
    depends |= {"negative_shift": 0.0, "int32_overflow": 0.0}
    depends["ow_op_minus_1"] = 0.0 if fit.multipliers is None else 1.0
    return replace(
        fit,
        largest_error=targets.largest(steps),
        root_mean_square=np.sqrt(targets.squares(steps)),
        depends=MappingProxyType(depends),
    )


def _shift(multiplier: float) -> int:
    """The largest shift with which the multiplier's scale stays within 15 bits."""
    if not 0 < multiplier <= LARGEST_SCALE:
        raise NpuError(f"a scale is {multiplier:g}, expected above 0 and at most {LARGEST_SCALE}")
    shift = floor(log2((LARGEST_SCALE + 0.5) / multiplier))
    if shift > LARGEST_SHIFT:
        raise NpuError(
            f"a scale is {multiplier:g}, expected at least {2.0 ** (14 - LARGEST_SHIFT):g}: with a smaller "
            "one every "
            "result is the offset"
        )
    return shift


def _biases(real: Floats, multiplier: Floats, rule: Rule) -> Integers:
    """Integers for the biases; where the rule truncates, half an output step is in them."""
    truncates = rule.rounding is Rounding.TRUNCATE and not rule.ties_away
    whole = np.rint(real + (0.5 / multiplier if truncates else 0.0))
    if not (np.abs(whole) <= _INT32[1]).all():
        raise NpuError(
            f"a bias is {float(np.abs(real).max()):g} in units of the sums, expected one that fits int32"
        )
    return whole.astype(np.int64)
