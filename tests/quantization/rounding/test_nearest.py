"""Nearest rounding: each weight its nearest entry, each group the table that weighted errors choose."""

import numpy as np
import pytest
import torch
from tests.formats import nearest_numpy

from rockledge.formats import table
from rockledge.quantization.rounding.codebook import start_scale, start_tables
from rockledge.quantization.rounding.nearest import nearest_in_tables, nearest_integers


def weights(rows: int, cols: int) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("cols", [16, 40])
def test_all_inputs_alike_give_what_the_specification_gives(bits: int, cols: int) -> None:
    w = weights(200, cols)
    scale, tables = start_scale(w), start_tables(bits).round().to(torch.int8)
    found = nearest_in_tables(w, scale, tables, torch.ones(cols))
    index, codes = nearest_numpy.encode(w.numpy(), scale.numpy(), tables.numpy())
    assert found.index is not None
    assert found.codes is not None
    assert float((found.index.numpy() == index).mean()) > 0.98  # near ties may fall either way
    decoded = table.decode(found.index.numpy(), found.codes.numpy(), tables.numpy())
    np.testing.assert_array_equal(decoded, found.w8.numpy())
    best = np.square(table.decode(index, codes, tables.numpy()) * scale.numpy()[:, None] - w.numpy()).sum()
    assert np.square(found.w8.numpy() * scale.numpy()[:, None] - w.numpy()).sum() < 1.001 * best


def test_an_input_that_matters_more_gets_the_table_that_suits_it() -> None:
    w = weights(200, 16)
    scale, tables = start_scale(w), start_tables(3).round().to(torch.int8)
    heavy = torch.ones(16)
    heavy[5] = 100.0

    def error(importance: torch.Tensor) -> float:
        found = nearest_in_tables(w, scale, tables, importance)
        return float((found.w8 * scale[:, None] - w)[:, 5].square().sum())

    assert error(heavy) < 0.7 * error(torch.ones(16))


def test_integers_are_rounded_and_clipped() -> None:
    w = torch.tensor([[0.4, -2.6, 300.0, -300.0]])
    assert nearest_integers(w, torch.ones(1)).w8.tolist() == [[0.0, -3.0, 127.0, -127.0]]
