"""Row scales: the search takes the best it tried, the fit is the minimum."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rockledge.quantization.rounding.clip import best_of_scales, refit_scale, search_scale
from rockledge.quantization.rounding.codebook import start_scale, start_tables
from rockledge.quantization.rounding.gptq import Rounded, feedback, round_to_tables
from rockledge.quantization.rounding.price import row_errors


def integers(u: torch.Tensor) -> torch.Tensor:
    return u.round().clamp(-7, 7)


def test_the_search_clips_a_lone_outlier() -> None:
    w = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    w[:, 17] = 60.0
    base = w.abs().amax(dim=1) / 7
    shrinks = (1.0, 0.5, 0.25)
    everything = torch.ones(256)
    # An outlier that matters is kept, one that does not is clipped.
    indifferent = everything.clone()
    indifferent[17] = 0
    assert torch.equal(search_scale(w, base, shrinks, everything, integers), base)
    assert torch.equal(search_scale(w, base, shrinks, indifferent, integers), base * 0.25)


def test_the_fit_is_the_minimum() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
    h, w = x.T @ x / 500, torch.randn(6, 48, generator=generator)
    scale = w.abs().amax(dim=1) / 7
    q = integers(w / scale[:, None])
    fitted, explained = refit_scale(w, q, h, scale)
    best = row_errors(q * fitted[:, None] - w, h)
    torch.testing.assert_close(row_errors(w, h) - explained.float(), best, rtol=1e-3, atol=1e-3)
    for nudge in (0.98, 1.02, 1.0 / 1.05):
        assert bool((row_errors(q * (fitted * nudge)[:, None] - w, h) > best).all())


def test_a_row_of_zeros_keeps_its_scale() -> None:
    scale = torch.tensor([0.5, 2.0])
    fitted, explained = refit_scale(torch.zeros(2, 16), torch.zeros(2, 16), torch.eye(16), scale)
    assert torch.equal(fitted, scale)
    assert not explained.any()


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([2, 3, 4]), st.integers(0, 99))
def test_more_tries_never_raise_the_error_of_a_row(bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(300, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    h, w = x.T @ x / 300, torch.randn(12, 64, generator=generator)
    tables, how = start_tables(bits).round().to(torch.int8), feedback(h)
    shares = (1.0, 0.97, 1.03)

    def rounding(weights: torch.Tensor, scale: torch.Tensor) -> Rounded:
        return round_to_tables(weights, scale, tables, how)

    errors = []
    for count in (1, 2, 3):
        found, scale = best_of_scales(w, start_scale(w), shares[:count], h, rounding)
        errors.append(row_errors(found.w8 * scale[:, None] - w, h))
        assert found.codes is not None
        assert found.codes.shape == w.shape
    for fewer, more in pairwise(errors):
        assert bool((more <= fewer * (1 + 1e-4)).all())
    assert float(errors[2].sum()) < float(errors[0].sum())
