"""Rounding with error feedback: without correlations it is nearest rounding, with them it is better."""

import numpy as np
import pytest
import torch

from rockledge.errors import CheckpointError
from rockledge.formats import table
from rockledge.quantize.codebook import start_scale, start_tables
from rockledge.quantize.gptq import feedback_factor, round_to_integers, round_to_tables
from rockledge.quantize.price import row_errors


def correlated_moments(cols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(2000, cols // 4, generator=generator) @ torch.randn(
        cols // 4, cols, generator=generator
    )
    x = few + 0.3 * torch.randn(2000, cols, generator=generator)
    return x.T @ x / len(x)


def weights(rows: int, cols: int) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(9))


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    h = correlated_moments(40)
    u = feedback_factor(h, damping=0.05).double()
    damped = h.double() + 0.05 * h.diagonal().double().mean() * torch.eye(40)
    assert torch.equal(u, u.triu())
    torch.testing.assert_close(u.T @ u @ damped, torch.eye(40).double(), atol=1e-4, rtol=0)


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    h = correlated_moments(32)
    h[5], h[:, 5] = 0, 0
    assert bool(torch.isfinite(feedback_factor(h)).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("cols", [16, 40, 160])
def test_without_correlations_it_is_nearest_rounding(bits: int, cols: int) -> None:
    w = weights(24, cols)
    scale, tables = start_scale(w), start_tables(bits).round().to(torch.int8)
    found = round_to_tables(w, scale, tables, torch.eye(cols))
    index, codes = table.encode(w.numpy(), scale.numpy(), tables.numpy())
    assert found.index is not None
    assert found.codes is not None
    # Ties between tables may fall either way; the error may not be larger.
    assert float((found.index.numpy() == index).mean()) > 0.99
    decoded = table.decode(found.index.numpy(), found.codes.numpy(), tables.numpy())
    np.testing.assert_array_equal(decoded, found.w8.numpy())
    expected = table.decode(index, codes, tables.numpy()) * scale.numpy()[:, None] - w.numpy()
    error = decoded * scale.numpy()[:, None] - w.numpy()
    assert np.square(error).sum() <= np.square(expected).sum() * (1 + 1e-5)


@pytest.mark.parametrize("bits", [3, 4])
def test_feedback_makes_outputs_better_at_the_cost_of_weights(bits: int) -> None:
    h, w = correlated_moments(160), weights(64, 160)
    scale, tables = start_scale(w), start_tables(bits).round().to(torch.int8)
    plain = round_to_tables(w, scale, tables, torch.eye(160)).w8 * scale[:, None] - w
    better = round_to_tables(w, scale, tables, feedback_factor(h)).w8 * scale[:, None] - w
    assert float(row_errors(better, h).sum()) < 0.5 * float(row_errors(plain, h).sum())
    assert float(better.square().sum()) > float(plain.square().sum())


def test_integers_stay_in_range_and_follow_feedback() -> None:
    h, w = correlated_moments(48), weights(16, 48)
    scale = w.abs().amax(dim=1) / 120
    plain = round_to_integers(w, scale, torch.eye(48)).w8
    assert torch.equal(plain, (w / scale[:, None]).round())
    better = round_to_integers(w, scale, feedback_factor(h)).w8
    assert float(better.abs().max()) <= 127
    errors = [float(row_errors(q * scale[:, None] - w, h).sum()) for q in (plain, better)]
    assert errors[1] < 0.5 * errors[0]
    clipped = round_to_integers(w, scale / 4, torch.eye(48)).w8
    assert float(clipped.max()) == 127
    assert float(clipped.min()) == -127


def test_damping_rises_until_the_factor_exists() -> None:
    h = correlated_moments(32)
    low = float(torch.linalg.eigvalsh(h.double())[0])
    mean = float(h.diagonal().mean())
    # The smallest eigenvalue at -0.05 means: 0.01 is too little, 0.1 is enough.
    h = h - (low + 0.05 * mean) * torch.eye(32)
    mean = float(h.diagonal().mean())
    raised: list[float] = []
    factor = feedback_factor(h, raised=raised.append)
    assert raised == [pytest.approx(0.1)]
    damped = h.double() + 0.1 * mean * torch.eye(32)
    torch.testing.assert_close(
        factor.double().T @ factor.double() @ damped, torch.eye(32).double(), atol=1e-3, rtol=0
    )
    feedback_factor(correlated_moments(32), raised=raised.append)
    assert len(raised) == 1


def test_moments_that_are_not_finite_are_refused() -> None:
    h = correlated_moments(16)
    h[3, 3] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        feedback_factor(h)
