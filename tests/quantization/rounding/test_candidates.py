"""Candidates: complete at every width, cheaper with more bits, priced for every reason their errors
matter."""

import numpy as np
import pytest
import torch

from rockledge.formats.bands import Band
from rockledge.formats.packing import dequantize, pack
from rockledge.quantization.rounding.candidates import Candidate, Rounding, Term, joint_moments, nearly_normal
from rockledge.quantization.rounding.codebook import start_tables
from rockledge.quantization.rounding.price import row_errors
from rockledge.quantization.steps import Steps

ROWS, COLS = 40, 72


def term(seed: int) -> Term:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(400, COLS, generator=generator) @ torch.randn(COLS, COLS, generator=generator)
    return Term(x.T @ x / 400, torch.rand(ROWS, generator=generator))


def weights() -> torch.Tensor:
    return torch.randn(ROWS, COLS, generator=torch.Generator().manual_seed(1))


def decoded(candidate: Candidate) -> torch.Tensor:
    index = np.zeros((ROWS, -(-COLS // 16)), np.uint8) if candidate.index is None else candidate.index
    tables = {} if candidate.tables is None else {candidate.bits: candidate.tables}
    packed = pack(candidate.codes, index, tables, candidate.scale, (Band(0, ROWS, candidate.bits),))
    return torch.from_numpy(dequantize(packed))


@pytest.mark.parametrize("terms", [[term(2)], [term(2), term(3)]])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_prices_are_those_of_the_decoded_weights(bits: int, terms: list[Term]) -> None:
    w = weights()
    candidate = Rounding(w, terms, Steps()).at(bits)
    delta = decoded(candidate) - w
    expected = sum(0.5 * one.sensitivity * row_errors(delta, one.moments) for one in terms)
    np.testing.assert_allclose(candidate.prices, torch.as_tensor(expected).numpy(), rtol=1e-3, atol=1e-7)


def test_more_bits_cost_less() -> None:
    rounding = Rounding(weights(), [term(2)], Steps())
    costs = [float(rounding.at(bits).prices.sum()) for bits in (2, 3, 4, 8)]
    assert costs[1] < 0.5 * costs[0]
    assert costs[2] < 0.5 * costs[1]
    assert costs[3] < 0.1 * costs[2]


def test_rows_of_zeros_stay_zeros_at_8_bits_and_are_finite_at_all() -> None:
    w = weights()
    w[7] = 0
    for bits in (3, 4, 8):
        candidate = Rounding(w, [term(2)], Steps()).at(bits)
        assert np.isfinite(candidate.scale).all()
        assert np.isfinite(candidate.prices).all()
    assert not decoded(candidate)[7].any()


def test_two_reasons_are_weighed_by_how_much_they_matter() -> None:
    first, second = term(2), term(3)
    loud = Term(second.moments, second.sensitivity * 1e6)
    torch.testing.assert_close(joint_moments([first, loud]), second.moments, rtol=1e-3, atol=1e-2)
    assert joint_moments([first]) is first.moments


def test_tables_are_learned_where_weights_are_not_normal() -> None:
    normal = torch.randn(512, 256, generator=torch.Generator().manual_seed(4))
    assert nearly_normal(normal)
    skewed = normal.sign() * normal.square()
    assert not nearly_normal(skewed)
    start = start_tables(4).round().to(torch.int8)
    for weights, steps, same in (
        (normal, Steps(), True),
        (skewed, Steps(), False),
        (skewed, Steps(tables="normal"), True),
    ):
        found = Rounding(weights, [Term(torch.eye(256), torch.ones(512))], steps).at(4).tables
        assert (found == start.numpy()).all() == same


def test_without_clipping_the_largest_weight_is_on_the_grid() -> None:
    w = weights()
    w[:, 7] = 40.0
    rounding = Rounding(
        w, [Term(torch.eye(COLS), torch.ones(ROWS))], Steps(clip=False, tables="normal", rounding="nearest")
    )
    for bits in (3, 8):
        torch.testing.assert_close(decoded(rounding.at(bits))[:, 7], w[:, 7], rtol=0.05, atol=0)
