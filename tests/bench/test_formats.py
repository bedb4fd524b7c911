"""The format experiment: what it compares is learned as well as theory and arithmetic say it must be."""

from dataclasses import replace

import pytest
import torch

from bench.formats import SHIPPED, Format, learned, levels, lost
from rockledge.quantization.rounding.codebook import start_scale

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def gaussian() -> torch.Tensor:
    return torch.randn(128, 512, generator=torch.Generator().manual_seed(0))


def test_levels_are_those_of_the_literature() -> None:
    # J. Max, "Quantizing for minimum distortion", 1960, table I: four levels at 0.4528 and 1.510.
    assert levels(2).tolist() == pytest.approx([-1, -0.4528 / 1.510, 0.4528 / 1.510, 1], abs=1e-3)


def test_free_tables_lose_less_than_derived_and_those_less_than_integer_multipliers(
    gaussian: torch.Tensor,
) -> None:
    free, derived = (lost(gaussian, replace(SHIPPED, kind=kind), rounds=30) for kind in ("free", "derived"))
    integer = lost(gaussian, Format(4, 32, 8, "integer"), rounds=30)
    assert free < derived < integer < 0.0095  # the loss of sixteen levels without groups


def test_smaller_groups_and_more_tables_lose_less(gaussian: torch.Tensor) -> None:
    losses = [lost(gaussian, Format(3, group, 4, "free"), rounds=20) for group in (16, 32, 64)]
    assert losses == sorted(losses)
    losses = [lost(gaussian, Format(3, 16, index, "free"), rounds=20) for index in (5, 4, 3)]
    assert losses == sorted(losses)


def test_integer_tables_are_what_integer_arithmetic_gives(gaussian: torch.Tensor) -> None:
    tables = learned(gaussian, Format(4, 32, 7, "integer"), start_scale(gaussian), rounds=8)
    assert tables.shape == (128, 16)
    codebook = tables[-1]  # multiplier 127 of 128: the codebook itself within one
    for multiplier in (1, 64, 100):
        expected = codebook * multiplier / 127
        assert (tables[multiplier] - expected).abs().max() <= 1.01


def test_costs_are_code_and_index() -> None:
    assert SHIPPED.cost == 4.25
    assert Format(3, 32, 5, "free").cost == 3.15625
    assert Format(4, 32, 6, "free").at_quarter(0.01) == pytest.approx(0.01 * 4 ** (6 / 32 - 0.25))
