"""A diagonal of second moments is used as the whole matrix would be without the rest of it."""

import pytest
import torch

from rockledge.quantization.rounding.clip import refit_scale
from rockledge.quantization.rounding.moments import importance, second_moments, weighed
from rockledge.quantization.rounding.price import row_errors


def rows(count: int, cols: int, seed: int) -> torch.Tensor:
    return torch.randn(count, cols, generator=torch.Generator().manual_seed(seed))


def test_the_diagonal_is_that_of_the_whole() -> None:
    x = rows(50, 12, 1)
    whole = second_moments(x, diagonal=False)
    torch.testing.assert_close(whole, whole.T)
    assert float(whole[3, 4]) == pytest.approx(float((x[:, 3] * x[:, 4]).sum()), rel=1e-5)
    torch.testing.assert_close(second_moments(x, diagonal=True), whole.diagonal())


def test_errors_and_scales_agree_where_nothing_correlates() -> None:
    diagonal, w = torch.rand(12, generator=torch.Generator().manual_seed(2)) + 0.1, rows(7, 12, 3)
    whole = torch.diag(diagonal)
    torch.testing.assert_close(weighed(w, diagonal), weighed(w, whole))
    torch.testing.assert_close(row_errors(w, diagonal), row_errors(w, whole))
    w8, scale = (w * 9).round(), torch.full((7,), 0.2)
    torch.testing.assert_close(refit_scale(w, w8, diagonal, scale), refit_scale(w, w8, whole, scale))


def test_dead_inputs_count_as_one() -> None:
    assert importance(torch.tensor([2.0, 0.0])).tolist() == [2.0, 1.0]
    assert importance(torch.diag(torch.tensor([2.0, 0.0]))).tolist() == [2.0, 1.0]
