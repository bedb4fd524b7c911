"""The factor in place is the library's, over several panels too, and a matrix that has none is told."""

import pytest
import torch

from rockledge.quantization.rounding import cholesky
from rockledge.quantization.rounding.cholesky import cholesky_


def positive(size: int) -> torch.Tensor:
    x = torch.randn(2 * size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return x.T @ x / size


@pytest.mark.parametrize("size", [1, 15, 16, 17, 50])
def test_it_is_the_factor_of_the_library(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cholesky, "_PANEL", 16)
    h = positive(size)
    expected = torch.linalg.cholesky(h)
    place = h.data_ptr()
    assert cholesky_(h)
    assert h.data_ptr() == place
    torch.testing.assert_close(h.tril(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bad", [3, 40])
def test_an_indefinite_matrix_has_no_factor(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cholesky, "_PANEL", 16)
    h = positive(50)
    h[bad, bad] = -1.0
    assert not cholesky_(h)
