"""Learning tables: how little they lose, that they fit what they are given, that they repeat themselves."""

import numpy as np
import pytest
import torch
from tests.formats import nearest_numpy

from rockledge.errors import UsageError
from rockledge.formats import table
from rockledge.quantization.rounding.codebook import decode, encode, learn_tables, start_tables

torch.set_num_threads(1)


def loss(w, coded, weight=None):
    """Relative (weighted) squared error."""
    weight = torch.ones(1) if weight is None else weight
    error = w - coded.scale[:, None] * decode(coded.index, coded.codes, coded.tables)
    return float((weight * error**2).sum() / (weight * w**2).sum())


def gaussian(rows, cols, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=generator) * (0.1 + torch.rand(rows, 1, generator=generator))


# What the best single set of levels of b bits loses on a normal source
# (J. Max, "Quantizing for minimum distortion", 1960, table I).
MAX = {2: 0.1175, 3: 0.03454, 4: 0.009497}


@pytest.mark.parametrize("bits, bar", [(4, 0.0050), (3, 0.0180), (2, 0.0740)])
def test_gaussian_weights_lose_little(bits, bar):
    w = gaussian(768, 576)
    lost = loss(w, learn_tables(w, bits))
    assert lost < bar
    assert 2.0 ** (-2 * (bits + 4 / 16 + 32 / 576)) < lost < 0.65 * MAX[bits]


def test_rounds_of_learning_adapt_the_tables():
    # Laplace weights are not what the start was learned on.
    generator = np.random.default_rng(0)
    w = torch.from_numpy(generator.laplace(size=(512, 320)).astype(np.float32))
    assert loss(w, learn_tables(w, 3, iterations=12)) < 0.97 * loss(w, learn_tables(w, 3, iterations=0))


@pytest.mark.parametrize("per_row", [False, True])
def test_importance_moves_the_error_to_where_it_matters_less(per_row):
    w = gaussian(256, 320)
    weight = torch.rand(256, 320) ** 4 + 0.01 if per_row else torch.rand(320) ** 4 + 0.01
    assert loss(w, learn_tables(w, 3, weight), weight) < 0.93 * loss(w, learn_tables(w, 3), weight)


def test_the_specification_decodes_the_same():
    w = gaussian(40, 50)
    coded = learn_tables(w, 3)
    assert coded.codes.shape == (40, 50)
    assert coded.index.shape == (40, 4)
    expected = table.decode(coded.index.numpy(), coded.codes.numpy(), coded.tables.numpy())
    assert (decode(coded.index, coded.codes, coded.tables).numpy() == expected).all()


def test_encoding_is_as_good_as_the_specifications():
    w = gaussian(64, 96)
    tables = start_tables(4).round().to(torch.int8)
    scale = w.square().mean(1).sqrt() / 32
    index, codes = encode(w, scale, tables)
    best_index, best_codes = nearest_numpy.encode(w.numpy(), scale.numpy(), tables.numpy())
    ours = (decode(index, codes, tables) * scale[:, None] - w).square().sum()
    best = np.square(
        table.decode(best_index, best_codes, tables.numpy()) * scale.numpy()[:, None] - w.numpy()
    ).sum()
    assert float(ours) == pytest.approx(float(best), rel=1e-3)


def test_the_same_arguments_give_the_same_tables():
    w = gaussian(2000, 320)
    one, two, other = (learn_tables(w, 2, seed=seed) for seed in (1, 1, 2))
    assert all(
        torch.equal(getattr(one, part), getattr(two, part)) for part in ("tables", "scale", "index", "codes")
    )
    assert not torch.equal(one.tables, other.tables)


def test_a_row_of_zeros_stays_zero():
    w = gaussian(32, 64)
    w[3] = 0
    coded = learn_tables(w, 4)
    assert (coded.scale > 0).all()
    assert (coded.scale[3] * decode(coded.index, coded.codes, coded.tables)[3]).abs().max() < 1e-25
    assert loss(w, coded) < 0.006


def test_widths_without_tables_are_refused():
    with pytest.raises(UsageError, match="5 bits"):
        learn_tables(gaussian(8, 32), 5)
