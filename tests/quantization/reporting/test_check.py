"""The check of the prices against what it stands for: whole forward passes with one band changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rockledge.model.checkpoint import open_checkpoint
from rockledge.quantization.float_model.forward import block_forward
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.reporting.check import (
    CheckedBand,
    PriceCheck,
    price_check,
    role_of,
    sample_bands,
)
from rockledge.quantization.rounding.candidates import dequantized_rows
from rockledge.quantization.transforming.hadamard import hadamard
from rockledge.quantization.transforming.order import stored_order
from rockledge.quantization.transforming.rotate import RotatedModel, rotated
from rockledge.quantization.work.store import BandPrices, Prices, WorkDirectory
from rockledge.synth import SHAPES, synth_checkpoint

WINDOWS = np.random.default_rng(1).integers(0, 300, (3, 40))
Measured = tuple[RotatedModel, Prices, WorkDirectory]


def quiet(*_: object) -> None:
    pass


@pytest.fixture(scope="module", params=["tied", "untied"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp(request.param)
    config = replace(SHAPES["toy"], tied=request.param == "tied")
    source = synth_checkpoint(config, folder / "model")
    quantize(source, folder / "out", bits=6.0, tokens=2048, work=folder / "work")
    work = WorkDirectory(folder / "work")
    return rotated(open_checkpoint(source)), work.prices(), work


def by_whole_forward(model: RotatedModel, work: WorkDirectory, band: CheckedBand) -> float:
    """KL with the band changed in plain channel order, from logarithms of probabilities in float64."""
    tokens = torch.from_numpy(WINDOWS)
    rows = slice(band.start, band.start + band.rows)
    rounded = dequantized_rows(work.candidate(band.linear, band.bits), rows, torch.device("cpu"))
    logs = []
    for changed in (False, True):
        ends = {"embed": model.embedding(), "head": model.head()}
        if changed and band.linear in ends:
            ends[band.linear][rows] = rounded
            if model.config.tied:
                ends["head"] = ends["embed"]
        x = ends["embed"][tokens].double()
        for layer in range(model.config.layers):
            weights = model.block_weights(layer, online=False)
            role = role_of(band.linear)
            if changed and band.linear == f"layers.{layer}.{role}":
                order = stored_order(work.path, layer)
                if role == "ffn.down":
                    weights[role][rows, order] = hadamard(rounded, model.online["ffn.down"])
                else:
                    weights[role][order[rows] if role in ("ffn.gate", "ffn.up") else rows] = rounded
            x = block_forward({k: w.double() for k, w in weights.items()}, x, model.tree, layer)
        logits = model.head_input(x.float()).double() @ ends["head"].double().T
        logs.append(F.log_softmax(logits, dim=-1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum(dim=-1).mean())


def test_measurements_are_those_of_whole_forward_passes(measured: Measured) -> None:
    model, prices, work = measured
    check = price_check(model, prices, work, WINDOWS, 0, quiet)
    assert check.tokens == WINDOWS.size
    roles = {role_of(band.linear) for band in check.bands}
    assert roles == {role_of(band.linear) for band in prices.bands}
    for band in check.bands:
        assert band.measured == pytest.approx(by_whole_forward(model, work, band), rel=0.02, abs=1e-8)


def test_prices_rank_bands_as_measurement_does(measured: Measured) -> None:
    model, prices, work = measured
    check = price_check(model, prices, work, WINDOWS, 0, quiet)
    assert check.rank_correlation > 0.8
    assert set(check.measured_over_priced) == {role_of(band.linear) for band in check.bands}


def test_a_seed_repeats_the_sample_and_every_role_has_its_share() -> None:
    bands = [BandPrices(f"layers.{i}.attn.q", 16 * j, 16, 96, {3: 1.0}) for i in range(9) for j in range(6)]
    bands += [BandPrices(f"layers.{i}.attn.o", 0, 96, 96, {3: 1.0}) for i in range(9)]
    bands += [BandPrices("embed", 0, 300, 96, {3: 1.0})]
    chosen = sample_bands(bands, 14, seed=1)
    assert len(chosen) == 14
    assert chosen == sample_bands(bands, 14, seed=1)
    assert chosen != sample_bands(bands, 14, seed=2)
    found = [role_of(band.linear) for band in chosen]
    assert [found.count(role) for role in ("embed", "attn.o", "attn.q")] == [1, 7, 6] or [
        found.count(role) for role in ("embed", "attn.o", "attn.q")
    ] == [1, 6, 7]
    assert len(sample_bands(bands, 1000, seed=1)) == len(bands)


def test_ranks_and_ratios_of_known_numbers() -> None:
    bands = [
        CheckedBand("layers.0.attn.q", 0, 16, 3, 1e-3, 4e-3),
        CheckedBand("layers.1.attn.q", 0, 16, 3, 2e-3, 2e-3),
        CheckedBand("embed", 0, 300, 3, 3e-3, 9e-3),
    ]
    check = PriceCheck(tuple(bands), 10)
    # Ranks 1 2 3 against 2 1 3: 1 - 6 x 2 / (3 x 8).
    assert check.rank_correlation == pytest.approx(0.5)
    assert check.measured_over_priced == pytest.approx({"attn.q": 2.0, "embed": 3.0})
