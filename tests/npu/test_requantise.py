"""Scales fitted to the chip's rule, against brute force: every sum, every scale."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu.requantise import Rounding, Rule, fit_channels, fit_tensor, requantised
from rockledge_npu_lab.emulation.options import Rounding as LabRounding
from rockledge_npu_lab.emulation.rounding import saturate, shift_right

RULES = [Rule(rounding, away) for rounding in Rounding for away in (False, True)]
rules = st.sampled_from(RULES)


def by_hand(sums, bias, scale, shift, offset, rule):
    """One number by the rule in words, in exact integers."""
    whole, left = divmod((sums + bias) * scale, 1 << shift)
    half = (1 << shift) // 2
    if rule.ties_away:
        up = left > half or (left == half and shift > 0 and whole >= 0)
    elif rule.rounding is Rounding.TRUNCATE:
        up = False
    else:
        up = left > half or (
            left == half and shift > 0 and (rule.rounding is Rounding.TIES_UP or whole & 1 == 1)
        )
    return min(max(whole + up + offset, -128), 127)


def target(sums, multiplier, bias, offset):
    return np.clip((sums + bias) * multiplier + offset, -128, 127)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.02, 3.0),
    st.integers(-2000, 2000),
    st.integers(0, 3000),
    st.integers(-100, 100),
    st.floats(-300, 300),
    rules,
)
def test_a_fit_s_result_and_errors_are_those_of_every_single_sum(multiplier, low, width, offset, bias, rule):
    sums = np.arange(low, low + width + 1)
    fit = fit_tensor(multiplier, low, low + width, bias=np.array([bias]), offset=offset, rule=rule)
    found = requantised(sums[:, None], fit, rule)[:, 0]
    scale, shift = fit.scale, fit.shift
    assert found.tolist() == [by_hand(int(s), int(fit.bias[0]), scale, shift, offset, rule) for s in sums]
    away = found - target(sums, multiplier, bias, offset)
    assert fit.largest_error[0] == pytest.approx(np.abs(away).max(), abs=1e-6)
    assert fit.root_mean_square[0] == pytest.approx(np.sqrt((away**2).mean()), abs=1e-6)
    for name, share in fit.depends.items():
        others = {
            **{f"requantise {r.value}": replace(rule, rounding=r) for r in Rounding},
            "bit 30": replace(rule, ties_away=not rule.ties_away),
        }
        if name in others:
            changed = requantised(sums[:, None], fit, others[name])[:, 0] != found
            assert share == pytest.approx(changed.mean())


@settings(max_examples=4, deadline=None)
@given(st.floats(0.1, 2.0), st.integers(40, 120), rules)
def test_no_scale_and_shift_are_better_than_the_fitted_ones(multiplier, steps, rule):
    reach = int(steps / multiplier)
    fit = fit_tensor(multiplier, -reach, reach, rule=rule)
    sums = np.arange(-reach, reach + 1)
    want = target(sums, multiplier, 0, 0)
    least = np.inf
    for shift in (fit.shift - 1, fit.shift, fit.shift + 1):
        scales = np.arange(1, 32768)
        scales = scales[np.abs(scales / 2.0**shift / multiplier - 1) < 0.1]
        for part in np.array_split(scales, 1 + len(scales) // 1000):
            for scale in part:
                one = replace(fit, scale=int(scale), shift=shift)
                away = requantised(sums[:, None], one, rule)[:, 0] - want
                least = min(least, float((away**2).mean()))
    assert fit.root_mean_square[0] ** 2 <= least * (1 + 2e-6) + 1e-12


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), rules)
def test_channels_have_errors_of_every_single_sum_and_no_integer_around_is_better(seed, rule):
    random = np.random.default_rng(seed)
    multipliers = np.exp(random.normal(-3, 1, 6))
    bias = random.normal(0, 100, 6)
    fit = fit_channels(multipliers, -1500, 1400, bias=bias, offset=5, rule=rule)
    sums = np.repeat(np.arange(-1500, 1401)[:, None], 6, axis=1)

    def square(one):
        away = requantised(sums, one, rule) - target(sums, multipliers, bias, 5)
        return (away**2).mean(axis=0)

    found = square(fit)
    np.testing.assert_allclose(fit.root_mean_square**2, found, rtol=1e-6)
    nearest = np.rint(multipliers * 2.0**fit.stage_shift).astype(np.int64)
    for step in (-1, 0, 1):
        near = replace(fit, multipliers=np.clip(nearest + step, 1, 32767))
        assert (found <= square(near) * (1 + 2e-6)).all()


def test_a_fit_reaches_no_tie_where_an_odd_scale_is_as_good():
    """The nearest scale is 0.25 exactly: every fourth sum is a tie, which sources dispute."""
    fit = fit_tensor(0.25, -500, 500)
    sums = np.arange(-500, 501)[:, None]
    one = replace(fit, scale=16384, shift=16)
    assert (requantised(sums, one, Rule()) != requantised(sums, one, Rule(Rounding.TIES_UP))).mean() > 0.1
    assert fit.depends["requantise ties-up"] == fit.depends["bit 30"] == 0
    away = requantised(sums, fit, Rule())[:, 0] - sums[:, 0] / 4
    assert np.abs(away).max() <= 0.5


def test_a_truncating_chip_gets_half_a_step_in_the_bias():
    fit = fit_tensor(0.003, -40000, 40000, rule=Rule(Rounding.TRUNCATE))
    assert fit.bias[0] == round(0.5 / 0.003)
    assert fit.root_mean_square[0] < 0.29


@pytest.mark.parametrize("shift", [1, 7, 22])
@pytest.mark.parametrize("rule", RULES)
def test_the_rule_is_that_of_the_emulator(rule, shift):
    """Two texts of one rule: here it is fitted to, there it is executed."""
    sums = np.random.default_rng(shift).integers(-(1 << 24), 1 << 24, (4000, 1))
    sums[:2000] >>= 12
    fit = replace(fit_tensor(0.5, -10, 10), scale=12344, shift=shift, offset=-3, ties_away=rule.ties_away)
    lab = shift_right(sums * 12344, shift, LabRounding(rule.rounding.value), rule.ties_away)
    np.testing.assert_array_equal(requantised(sums - fit.bias, fit, rule), saturate(lab - 3, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit_tensor(0.0, -1, 1), "a scale is 0, expected above 0"),
        (lambda: fit_tensor(float("nan"), -1, 1), "a scale is nan"),
        (lambda: fit_tensor(1e-12, -1, 1), "every result is the offset"),
        (lambda: fit_tensor(1.0, 1, -1), "do not rise within int32"),
        (lambda: fit_tensor(1.0, 0, (1 << 31) - 1, bias=np.array([5.0])), "do not rise within int32"),
        (lambda: fit_tensor(1.0, 0, 1, bias=np.array([1e10])), "a bias is 1e.10 in units of the sums"),
        (lambda: fit_channels(np.array([1.0, -1.0]), 0, 1), "a scale is -1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(make, message):
    with pytest.raises(NpuError, match=message):
        make()
