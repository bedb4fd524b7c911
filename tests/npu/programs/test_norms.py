"""RMSNorm and LayerNorm on the emulator: NumPy's bits, within their bounds against float64."""

import numpy as np
import pytest
from tests.npu.programs.operator_runs import halves, outputs_of

from rockledge.errors import NpuError
from rockledge.npu.programs.norms import NormRange, layernorm, rmsnorm, seen

EPSILON = 1e-5
SHAPES = ((1, 32), (16, 576), (12, 4096))
# Scale of all elements, of one outlier column, and how unequal rows are (standard deviation of the log).
KINDS = ((1, 1, 0), (0.02, 1, 0.5), (300, 1, 0.5), (1, 100, 0.5), (3, 1, 1.5))


def case(rows, columns, kind):
    """Rows of such a kind, gamma and beta."""
    scale, outlier, unequal = kind
    random = np.random.default_rng(columns)
    x = random.standard_normal((rows, columns)) * scale * np.exp(unequal * random.standard_normal((rows, 1)))
    x[:, columns // 3] *= outlier
    return halves(x), random.standard_normal(columns), random.standard_normal(columns)


@pytest.mark.parametrize("rows, columns", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_rmsnorm_is_within_its_bound(rows, columns, kind):
    x, gamma, _ = case(rows, columns, kind)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + EPSILON) * gamma
    for found in outputs_of(rmsnorm(rows, gamma, EPSILON, seen(x)), x=x):
        assert (np.abs(found - want) <= np.abs(want) / 256 + 1e-6 * np.abs(gamma) + 6e-8).all()


@pytest.mark.parametrize("gamma", [1.5e-4, 3.5e-6])
def test_rmsnorm_keeps_small_gammas_of_large_rows(gamma):
    """Times the root of the scaled mean, they lie among fp16's subnormals."""
    x = halves(np.random.default_rng(0).standard_normal((3, 129)) * 9000)
    factors = np.linspace(gamma, gamma / 8, 129)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + EPSILON) * factors
    for found in outputs_of(rmsnorm(3, factors, EPSILON, seen(x)), x=x):
        assert (np.abs(found - want) <= np.abs(want) / 256 + 1e-6 * factors + 6e-8).all()


def test_a_peak_that_no_row_of_such_squares_reaches_is_harmless():
    """64 columns with mean squares of 16 hold no element above 32, whatever the range says."""
    x = halves(np.full((1, 64), 4.0))
    for found in outputs_of(rmsnorm(1, np.ones(64), EPSILON, NormRange(60000.0, 16.0, 16.0)), x=x):
        assert (np.abs(found - 1) <= 1 / 256 + 1e-6).all()


@pytest.mark.parametrize("rows, columns", SHAPES)
@pytest.mark.parametrize(
    "kind, mean", [*((kind, 0.3) for kind in KINDS), ((1, 1, 0), 50.0), ((4e-7, 1, 0), 1.0)]
)
def test_layernorm_is_within_its_bound(rows, columns, kind, mean):
    x, gamma, beta = case(rows, columns, kind)
    x = halves(x + mean * kind[0])
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    scaled = centred / deviation * gamma
    largest = np.maximum(np.abs(wide).max(axis=1, keepdims=True), 2.0**-14) / deviation
    bound = np.abs(scaled) / 256 + np.abs(gamma) * (largest / 1024 + 1e-6) + 6e-8
    bound += (np.abs(scaled + beta) + np.abs(beta)) / 1024
    operator = layernorm(rows, gamma, beta, EPSILON, seen(x, centred=True))
    for found in outputs_of(operator, x=x, ones=halves(np.ones((rows, 32)))):
        assert (np.abs(found - scaled - beta) <= bound).all()


def test_rmsnorm_keeps_rows_of_very_unequal_size():
    """The first token of a text is often a hundred times the others, its mean square ten thousand times."""
    random = np.random.default_rng(0)
    x = random.standard_normal((12, 256))
    x[0] *= 200
    x = halves(x)
    wide = x.astype(np.float64)
    gamma = np.ones(256)
    want = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + EPSILON)
    for found in outputs_of(rmsnorm(12, gamma, EPSILON, seen(x)), x=x):
        assert (np.abs(found - want) <= np.abs(want) / 256 + 1e-6).all()


@pytest.mark.parametrize("make", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("factor", [3.0, 0.2])
def test_rows_outside_the_range_of_a_norm_are_refused(make, factor):
    x, gamma, beta = case(4, 64, KINDS[0])
    if make == "rmsnorm":
        operator = rmsnorm(4, gamma, EPSILON, seen(x))
    else:
        operator = layernorm(4, gamma, beta, EPSILON, seen(x, centred=True))
    x[2] *= factor
    with pytest.raises(
        NpuError, match=r"row 2 of (RMSNorm|LayerNorm) has a mean square of .*; calibrate on text"
    ):
        operator.packed({"x": x, "ones": halves(np.ones((4, 32)))})


@pytest.mark.parametrize(
    "ranges, message",
    [
        (NormRange(1.0, 0.5, 0.1), "expected rising mean squares"),
        (NormRange(np.inf, 0.1, 0.5), "expected rising mean squares"),
        (NormRange(70000.0, 1e8, 2e8), "expected rising mean squares of such elements, which fit fp16"),
        (NormRange(2000.0, 1e-4, 1e5), "reach down to 0.0001 beside elements of 2000"),
        (NormRange(60.0, 1e-3, 3000.0), "a ratio of .*, expected at most 262144"),
    ],
)
def test_ranges_that_an_rmsnorm_cannot_hold_are_refused(ranges, message):
    with pytest.raises(NpuError, match=message):
        rmsnorm(4, np.ones(64), 0.0, ranges)


def test_an_rmsnorm_with_a_gamma_beyond_fp16_is_refused():
    with pytest.raises(NpuError, match="gamma reaches 60000"):
        rmsnorm(4, np.full(64, 60000.0), EPSILON, NormRange(1.0, 0.5, 0.6))


def test_norms_with_too_many_columns_or_unequal_numbers_are_refused():
    ranges = NormRange(3.0, 0.5, 1.0)
    with pytest.raises(NpuError, match="RMSNorm has 4097 columns, expected 1 to 4096"):
        rmsnorm(1, np.ones(4097), EPSILON, ranges)
    with pytest.raises(NpuError, match="64 numbers gamma and 63 beta"):
        layernorm(1, np.ones(64), np.ones(63), EPSILON, ranges)


def test_results_of_a_norm_beyond_fp16_are_refused():
    x = np.zeros((2, 64))
    x[0], x[1, 5] = np.resize([125, -125], 64), 1000  # one mean square; an element of 8 times its root
    operator = rmsnorm(2, np.full(64, 4e4), EPSILON, seen(halves(x)))
    with pytest.raises(NpuError, match="row 1 of RMSNorm has a result beyond 65504"):
        operator.twin({"x": halves(x)})
    operator = layernorm(2, np.full(64, 10.0), np.full(64, 65460.0), EPSILON, seen(halves(x), centred=True))
    with pytest.raises(NpuError, match="row 1 of LayerNorm has a result beyond 65504"):
        operator.packed({"x": halves(x), "ones": halves(np.ones((2, 32)))})


def test_a_beta_or_an_epsilon_that_fp16_does_not_hold_is_refused():
    ranges = NormRange(3.0, 0.5, 1.0)
    with pytest.raises(NpuError, match="beta reaches 100000, which fp16 does not hold"):
        layernorm(1, np.ones(64), np.full(64, 1e5), EPSILON, ranges)
    for epsilon in (-1e-5, np.nan, np.inf):
        with pytest.raises(NpuError, match="the epsilon of a norm is"):
            rmsnorm(1, np.ones(64), epsilon, ranges)


def test_ones_that_are_others_are_refused():
    x, gamma, beta = case(4, 64, KINDS[0])
    with pytest.raises(NpuError, match="the ones of LayerNorm are not all 1"):
        layernorm(4, gamma, beta, EPSILON, seen(x, centred=True)).packed(
            {"x": x, "ones": halves(np.full((4, 32), 2.0))}
        )
