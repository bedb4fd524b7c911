"""Row scales: the search takes the best it tried, the fit is the minimum."""

import torch

from rockledge.quantize.clip import refit_scale, search_scale
from rockledge.quantize.price import row_errors


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
    fitted = refit_scale(w, q, h, scale)
    best = row_errors(q * fitted[:, None] - w, h)
    for nudge in (0.98, 1.02, 1.0 / 1.05):
        assert bool((row_errors(q * (fitted * nudge)[:, None] - w, h) > best).all())


def test_a_row_of_zeros_keeps_its_scale() -> None:
    scale = torch.tensor([0.5, 2.0])
    fitted = refit_scale(torch.zeros(2, 16), torch.zeros(2, 16), torch.eye(16), scale)
    assert torch.equal(fitted, scale)
