"""Rounding with error feedback: without correlations it is nearest rounding, with them it is better."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formats import nearest_numpy

from rockledge.errors import CheckpointError
from rockledge.formats import table
from rockledge.quantization.rounding.codebook import encode, start_scale, start_tables
from rockledge.quantization.rounding.gptq import (
    Feedback,
    Rounded,
    feedback,
    round_to_integers,
    round_to_tables,
    rounding_order,
)
from rockledge.quantization.rounding.price import row_errors


def correlated_moments(cols: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(2000, cols // 4, generator=generator) @ torch.randn(
        cols // 4, cols, generator=generator
    )
    x = few + 0.3 * torch.randn(2000, cols, generator=generator)
    return x.T @ x / len(x)


def weights(rows: int, cols: int) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(9))


def alone(cols: int) -> Feedback:
    """Nothing is passed on."""
    return Feedback(torch.eye(cols), torch.arange(cols))


def output_error(found: Rounded, scale: torch.Tensor, w: torch.Tensor, h: torch.Tensor) -> float:
    return float(row_errors(found.w8 * scale[:, None] - w, h).sum())


@pytest.mark.parametrize("activation_order", [False, True])
def test_the_factor_is_that_of_the_damped_inverse(activation_order: bool) -> None:
    h = correlated_moments(40)
    how = feedback(h, activation_order=activation_order, damping=0.05)
    u = how.factor.double()
    damped = h.double() + 0.05 * h.diagonal().double().mean() * torch.eye(40)
    ordered = damped[how.order][:, how.order]
    assert torch.equal(u, u.triu())
    torch.testing.assert_close(u.T @ u @ ordered, torch.eye(40).double(), atol=1e-4, rtol=0)
    # What is left of an error in a column is its variance given the columns after it.
    place = int((how.order == 20).nonzero())
    after = how.order[place + 1 :]
    known = torch.linalg.solve(damped[after][:, after], damped[after, 20])
    expected = damped[20, 20] - damped[20, after] @ known
    assert float(how.importance[20]) == pytest.approx(float(expected), rel=1e-3)


def test_groups_go_in_the_order_of_their_moments() -> None:
    sizes = torch.tensor([1.0, 3.0, 2.0, 9.0]).repeat_interleave(16)[:56]
    expected = [*range(16, 32), *range(32, 48), *range(16), *range(48, 56)]
    assert rounding_order(torch.diag(sizes)).tolist() == expected
    assert feedback(torch.diag(sizes), activation_order=False).order.tolist() == list(range(56))


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    h = correlated_moments(32)
    h[5], h[:, 5] = 0, 0
    assert bool(torch.isfinite(feedback(h).factor).all())


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("cols", [16, 40, 160])
def test_without_correlations_it_is_nearest_rounding(bits: int, cols: int) -> None:
    w = weights(24, cols)
    scale, tables = start_scale(w), start_tables(bits).round().to(torch.int8)
    found = round_to_tables(w, scale, tables, alone(cols))
    index, codes = nearest_numpy.encode(w.numpy(), scale.numpy(), tables.numpy())
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
    plain = round_to_tables(w, scale, tables, alone(160)).w8 * scale[:, None] - w
    better = round_to_tables(w, scale, tables, feedback(h)).w8 * scale[:, None] - w
    assert float(row_errors(better, h).sum()) < 0.5 * float(row_errors(plain, h).sum())
    assert float(better.square().sum()) > float(plain.square().sum())


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 20),
    st.sampled_from([2, 3, 4]),
    st.booleans(),
    st.integers(0, 99),
)
def test_what_is_kept_decodes_to_w8_in_any_order(
    cols: int, rows: int, bits: int, activation_order: bool, seed: int
) -> None:
    h = correlated_moments(cols + 4, seed)[:cols, :cols]
    w, tables = weights(rows, cols), start_tables(bits).round().to(torch.int8)
    found = round_to_tables(w, start_scale(w), tables, feedback(h, activation_order=activation_order))
    assert found.index is not None
    assert found.codes is not None
    decoded = table.decode(found.index.numpy(), found.codes.numpy(), tables.numpy())
    np.testing.assert_array_equal(decoded, found.w8.numpy())


def test_starting_with_the_largest_inputs_leaves_less() -> None:
    sizes = torch.linspace(0.1, 3, 10).repeat_interleave(16)
    h, w = correlated_moments(160) * sizes * sizes[:, None], weights(64, 160)
    scale, tables = start_scale(w), start_tables(3).round().to(torch.int8)
    errors = [
        output_error(round_to_tables(w, scale, tables, feedback(h, activation_order=order)), scale, w, h)
        for order in (False, True)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_a_group_takes_its_table_by_what_feedback_inside_it_leaves() -> None:
    h, w = correlated_moments(16), weights(400, 16)
    scale, tables = start_scale(w), start_tables(3).round().to(torch.int8)
    how = feedback(h, damping=1e-6)
    found = output_error(round_to_tables(w, scale, tables, how), scale, w, h)
    # All rows with one and the same table, for each of the sixteen.
    fixed = torch.stack(
        [
            row_errors(
                round_to_tables(w, scale, one.expand(16, -1).contiguous(), how).w8 * scale[:, None] - w, h
            )
            for one in tables
        ]
    )
    without, _ = encode(w, scale, tables, how.importance)
    assert found < 0.9 * float(fixed.gather(0, without.long().T).sum())
    assert found > 0.999 * float(fixed.amin(dim=0).sum())


def test_integers_stay_in_range_and_follow_feedback() -> None:
    h, w = correlated_moments(48), weights(16, 48)
    scale = w.abs().amax(dim=1) / 120
    plain = round_to_integers(w, scale, alone(48)).w8
    assert torch.equal(plain, (w / scale[:, None]).round())
    better = round_to_integers(w, scale, feedback(h)).w8
    assert float(better.abs().max()) <= 127
    errors = [float(row_errors(q * scale[:, None] - w, h).sum()) for q in (plain, better)]
    assert errors[1] < 0.5 * errors[0]
    clipped = round_to_integers(w, scale / 4, alone(48)).w8
    assert float(clipped.max()) == 127
    assert float(clipped.min()) == -127


def test_damping_rises_until_the_factor_exists() -> None:
    h = correlated_moments(32)
    low = float(torch.linalg.eigvalsh(h.double())[0])
    mean = float(h.diagonal().mean())
    # The smallest eigenvalue at -0.05 means: 0.01 is too little, ten times that is enough.
    h = h - (low + 0.05 * mean) * torch.eye(32)
    mean = float(h.diagonal().mean())
    raised: list[float] = []
    how = feedback(h, activation_order=False, damping=0.01, raised=raised.append)
    factor = how.factor
    assert raised == [pytest.approx(0.1)]
    damped = h.double() + 0.1 * mean * torch.eye(32)
    torch.testing.assert_close(
        factor.double().T @ factor.double() @ damped, torch.eye(32).double(), atol=1e-3, rtol=0
    )
    feedback(correlated_moments(32), raised=raised.append)
    assert len(raised) == 1


def test_moments_that_are_not_finite_are_refused() -> None:
    h = correlated_moments(16)
    h[3, 3] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        feedback(h)
