"""Two-plane inputs: given where one plane would be dear, and dear indeed."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.quantization.changed_checkpoint import changed

from rockledge.artifact import open_artifact
from rockledge.formats.bands import Band
from rockledge.model.config import ModelConfig
from rockledge.quantization.choosing.budget import Widths, planes_of
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.work.store import BandPrices, Prices, WorkDirectory
from rockledge.synth import SHAPES

LOUD = "layers.1.ffn.down"
TOKENS = 2048


def loud_channel(name: str, values: npt.NDArray[np.float32]) -> None:
    """A model whose predictions are clear, with one massive activation in the input of a down.

    Its column of down is faint, as in real models: it sets every token's rounding step, and says little.
    Balancing up against down would take most of it away.
    """
    if name == "embed":
        values *= 10
    if name.endswith("ffn.down"):
        values *= 10
    if name.endswith(("ffn.gate", "ffn.up")):
        values *= 5
    if name in ("layers.1.ffn.gate", "layers.1.ffn.up"):
        values[7] *= 20
    if name == LOUD:
        values[:, 7] *= 1e-3


def test_a_massive_activation_gets_two_planes_and_needs_them(tmp_path: Path) -> None:
    model = changed(tmp_path, loud_channel)
    plain = tmp_path / "plain.yaml"
    plain.write_text("version: 1\nsteps: {balance: false}\n")
    report = quantize(model, tmp_path / "out", bits=9.0, recipe=plain, tokens=TOKENS, work=tmp_path / "work")
    assert LOUD in report.numbers["two_plane_inputs"]
    artifact = open_artifact(tmp_path / "out")
    two = [name for name, spec in artifact.linears.items() if spec.planes == 2]
    assert sorted(two) == report.numbers["two_plane_inputs"]

    text = (tmp_path / "out" / "recipe.yaml").read_text()
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(text.replace(f"  {LOUD}: 2\n", ""))
    one_plane = quantize(model, tmp_path / "narrow", recipe=narrow, work=tmp_path / "work")
    assert one_plane.numbers["two_plane_inputs"] == [name for name in sorted(two) if name != LOUD]
    kl = [made.numbers["divergence"]["kl_mean_nats"] for made in (report, one_plane)]
    price = WorkDirectory(tmp_path / "work").prices().activations[LOUD]
    assert 0.4 < (kl[1] - kl[0]) / price < 2.5
    assert kl[1] > 5 * kl[0]


def priced(weights: float, activations: dict[str, float]) -> tuple[Prices, Widths, ModelConfig]:
    """Prices of one band that costs `weights` at four bits, and of these inputs, in the toy shape."""
    band = BandPrices("layers.0.attn.q", 0, 64, 64, {4: weights})
    return Prices((band,), activations), {"layers.0.attn.q": (Band(0, 64, 4),)}, SHAPES["toy"]


def test_linears_with_one_input_get_the_same() -> None:
    costs = {"layers.0.attn.q": 2e-3, "layers.0.attn.o": 1e-5, "layers.0.ffn.gate": 3e-3}
    wanted = [f"layers.0.{role}" for role in ("ffn.gate", "ffn.up", "attn.q", "attn.k", "attn.v")]
    assert planes_of(*priced(5e-3, costs)) == dict.fromkeys(wanted, 2)


@pytest.mark.parametrize("role", ["attn.o", "ffn.down"])
def test_an_input_needs_two_planes_only_beside_weights_that_are_finer(role: str) -> None:
    costs = {f"layers.0.{role}": 1e-3, f"layers.1.{role}": 1e-6}
    assert planes_of(*priced(1e-3, costs)) == {f"layers.0.{role}": 2}
    assert planes_of(*priced(1.0, costs)) == {}


def test_what_is_left_counts_once_the_dearest_are_dealt_with() -> None:
    costs = {"layers.0.ffn.down": 1.0, "layers.1.ffn.down": 1e-3}
    assert planes_of(*priced(1e-3, costs)) == dict.fromkeys(costs, 2)
