"""What was evaluated is what was written: the artifact's weights, one by one, are those of the fake
quantisation that its divergence was measured with."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rockledge.artifact import open_artifact
from rockledge.eval.divergence import DivergenceReport
from rockledge.formats.bands import Band
from rockledge.formats.packing import dequantize
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.family import stored_tensors
from rockledge.quantization.choosing.recipe import BUILT_IN, Recipe
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.reporting.fakequant import Linears
from rockledge.quantization.reporting.held_out import held_out_divergence
from rockledge.synth import synth_checkpoint


class Watched:
    """Linears that remember the weights of every one that was asked for."""

    def __init__(self, below: Linears) -> None:
        self._below = below
        self.seen: dict[str, npt.NDArray[np.float32]] = {}

    def weights(self, name: str, device: torch.device) -> torch.Tensor:
        weights = self._below.weights(name, device)
        self.seen[name] = weights.numpy()
        return weights

    def bias(self, name: str) -> npt.NDArray[np.float32] | None:
        return self._below.bias(name)


@pytest.mark.parametrize("widths", [(2, 3, 4, 8), (8, 4, 3, 2)])
def test_an_artifact_holds_the_weights_that_were_evaluated(
    widths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # toy: 96 and 208 inputs, 300 tokens; every linear has bands of all widths, the last one of what is left.
    source = open_checkpoint(synth_checkpoint("toy", tmp_path / "model"))
    bands = {}
    for stored in stored_tensors(source.config):
        if len(stored.shape) == 2:
            ends = (8, 16, 24, stored.shape[0])
            starts = (0, *ends)
            bands[stored.name] = tuple(
                Band(start, end - start, bits) for start, end, bits in zip(starts, ends, widths, strict=False)
            )
    recipe = Recipe("toy", 0, BUILT_IN, "", 2048, None, None, bands)
    (tmp_path / "recipe.yaml").write_text(recipe.text())

    watched: list[Watched] = []

    def spy(model: Any, plan: Any, linears: Linears, *rest: Any) -> DivergenceReport:
        watched.append(Watched(linears))
        return held_out_divergence(model, plan, watched[-1], *rest)

    monkeypatch.setattr("rockledge.quantization.pipeline.held_out_divergence", spy)
    quantize(source, tmp_path / "out", recipe=tmp_path / "recipe.yaml")

    artifact = open_artifact(tmp_path / "out")
    evaluated = watched[-1].seen
    assert set(artifact.linears) == set(evaluated) == set(bands)
    for name, spec in artifact.linears.items():
        assert [band.bits for band in spec.bands] == list(widths)
        np.testing.assert_array_equal(dequantize(artifact.linear(name)), evaluated[name], err_msg=name)
        assert np.unique(evaluated[name][8:16]).size > 8
