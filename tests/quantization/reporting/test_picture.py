"""The picture of the widths: what each cell stands for, and that it is a PNG which the report shows."""

import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from rockledge.artifact import open_artifact
from rockledge.artifact.layout import PICTURE as PLACE
from rockledge.formats.bands import Band
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.family import stored_tensors
from rockledge.quantization.choosing.budget import plan_artifact
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.reporting import picture
from rockledge.quantization.reporting.picture import PICTURE, band_width, grids, per_million, widths_picture
from rockledge.quantization.reporting.report import wide_reasons
from rockledge.quantization.transforming.rotate import rotated
from rockledge.quantization.work.store import BandPrices, Prices
from rockledge.synth import SHAPES, synth_checkpoint

TOY = SHAPES["toy"]


def toy_plan(folder: Path) -> tuple[Any, Prices]:
    """Heads 0 and 1 of every q at 8 bits, all else at 4; these heads have nine tenths of q's price."""
    model = rotated(open_checkpoint(synth_checkpoint("toy", folder)))
    four = {name: (Band(0, rows, 4),) for name, rows in rows_of(model).items()}
    flat = plan_artifact(model, four, {}, {}, None)
    widths = {name: spec.bands for name, spec in flat.linears.items()}
    bands = []
    for name, spec in flat.linears.items():
        if name.endswith("attn.q"):
            widths[name] = (Band(0, 32, 8), Band(32, 64, 4))
            for head in range(6):
                price = 0.45 if head < 2 else 0.025
                bands.append(BandPrices(name, 16 * head, 16, spec.cols, {3: 1.0, 4: price, 8: 0.0}))
        else:
            bands.append(BandPrices(name, 0, spec.rows, spec.cols, {3: 1.0, 4: 0.0, 8: 0.0}))
    return plan_artifact(model, widths, {}, {}, None), Prices(tuple(bands), {})


def rows_of(model: Any) -> dict[str, int]:
    return {t.name: t.shape[0] for t in stored_tensors(model.config) if len(t.shape) == 2}


def test_every_band_has_its_cell(tmp_path: Path) -> None:
    plan, prices = toy_plan(tmp_path)
    blocks, ends = grids(plan, prices)
    assert len(blocks) == TOY.layers
    for layer, line in enumerate(blocks):
        q = [band for band in line if band.linear == f"layers.{layer}.attn.q"]
        assert [band.start for band in q] == [0, 16, 32, 48, 64, 80]
        assert [band_width(plan, band) for band in q] == [8, 8, 4, 4, 4, 4]
    assert {band.linear for line in ends for band in line} == {"embed"}
    assert per_million(blocks[0][0]) == pytest.approx(0.45 * 1e6 / (16 * 96))


def test_heads_at_8_bits_are_explained_by_their_share_of_the_price(tmp_path: Path) -> None:
    plan, prices = toy_plan(tmp_path)
    why = wide_reasons(plan, prices)
    assert why["share_of_price"] == pytest.approx(0.9)
    # Two of six heads of q, beside two heads each of k and v, all of one size.
    assert why["share_of_weights"] == pytest.approx(2 / 10)


def test_no_price_is_cut_off(tmp_path: Path) -> None:
    """One band of many is a million times as cheap as the others."""
    plan, prices = toy_plan(tmp_path)
    cheap, *others = (band for band in prices.bands if band.prices[4] > 0)
    cheap = replace(cheap, prices={**cheap.prices, 4: 1e-8})
    free = [band for band in prices.bands if band.prices[4] == 0]
    figure = picture.drawing(plan, replace(prices, bands=(cheap, *others, *free)))
    assert figure.axes[0].get_title() == "bits per weight"
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    for image in shown[1::2]:  # on the right
        assert image.get_clim() == pytest.approx((per_million(cheap), max(map(per_million, others))))


def test_it_is_a_png_beside_the_report(tmp_path: Path) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    report = quantize(source, tmp_path / "out", bits=5.0, tokens=2048)
    assert PICTURE == PLACE
    assert (tmp_path / "out" / PICTURE).read_bytes() == report.picture
    pixels = imread(tmp_path / "out" / PICTURE)
    assert pixels.shape[0] > 200
    assert len({tuple(colour) for colour in pixels[::4, ::4].reshape(-1, pixels.shape[2])}) > 4
    assert f"]({PICTURE})" in report.text
    # With the picture in it an artifact is still one that may be replaced, and nothing is wrong with it.
    open_artifact(tmp_path / "out").verify()
    quantize(source, tmp_path / "out", bits=6.0, tokens=2048, overwrite=True)


def test_without_matplotlib_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(picture, "find_spec", missing)
    assert widths_picture(*toy_plan(tmp_path / "plan")) is None
    source = synth_checkpoint("toy", tmp_path / "model")
    report = quantize(source, tmp_path / "out", bits=5.0, tokens=2048)
    assert PICTURE not in report.text
    assert not (tmp_path / "out" / PICTURE).exists()


def test_importing_the_pipeline_does_not_import_matplotlib() -> None:
    program = "import sys, rockledge.quantization.pipeline; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
