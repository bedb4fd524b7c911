"""A device without memory: slices shrink, the result stays, and the report says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rockledge.artifact import open_artifact
from rockledge.errors import RockledgeError
from rockledge.quantization.calibration import calibrate
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.rounding import candidates
from rockledge.quantization.rounding.gptq import Rounded
from rockledge.quantization.work.slices import Slices
from rockledge.synth import synth_checkpoint


def test_slices_halve_until_the_work_fits() -> None:
    slices, tried = Slices(), []

    def work() -> str:
        tried.append(slices.of(100))
        if tried[-1] > 30:
            raise torch.OutOfMemoryError("no memory left")
        return "done"

    assert slices.fitting(work) == "done"
    assert tried == [100, 50, 25]
    assert slices.of(1) == 1
    assert "slices of 0.25" in slices.notes()[0]
    assert Slices().notes() == []


def test_work_that_never_fits_is_an_error() -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("no memory left")

    with pytest.raises(RockledgeError, match="--device cpu"):
        Slices().fitting(work)


def small_device(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Lets a block's forward pass fail for more than `most` sequences at a time; returns what was tried."""
    tried: list[int] = []
    forward = calibrate.block_forward

    def limited(weights: Any, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        tried.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("no memory left")
        return forward(weights, x, *rest)

    monkeypatch.setattr(calibrate, "block_forward", limited)
    return tried


def test_a_run_on_a_small_device_ends_as_on_a_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    large = quantize(source, tmp_path / "large", bits=5.0, tokens=3072)
    tried = small_device(monkeypatch, most=1)
    small = quantize(source, tmp_path / "small", bits=5.0, tokens=3072)
    assert tried[:3] == [4, 2, 1]
    assert set(tried[3:]) == {1}  # what was learned once holds for the blocks that follow
    assert any("ran out of memory" in note for note in small.numbers["notes"])
    assert large.numbers["divergence"]["kl_mean_nats"] == pytest.approx(
        small.numbers["divergence"]["kl_mean_nats"], rel=0.05
    )


def test_rounding_goes_by_fewer_rows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(source, tmp_path / "large", bits=6.0, tokens=2048)
    true = candidates.round_to_tables

    def limited(weights: torch.Tensor, *rest: Any) -> Rounded:
        if len(weights) > 150:
            raise torch.OutOfMemoryError("no memory left")
        return true(weights, *rest)

    monkeypatch.setattr(candidates, "round_to_tables", limited)
    report = quantize(source, tmp_path / "small", bits=6.0, tokens=2048)
    assert any("ran out of memory" in note for note in report.numbers["notes"])
    large, small = (open_artifact(tmp_path / name) for name in ("large", "small"))
    assert small.report is not None
    assert large.report is not None
    assert small.report["divergence"]["kl_mean_nats"] == pytest.approx(
        large.report["divergence"]["kl_mean_nats"], rel=0.05
    )


def test_memory_that_ends_in_the_backward_pass_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    quantize(source, tmp_path / "large", bits=5.0, tokens=3072)
    backward = torch.Tensor.backward
    calls: list[int] = []

    def limited(y: torch.Tensor, *rest: Any) -> None:
        # The second slice of a block's backward pass fails once, after the first one was counted.
        calls.append(len(y))
        if y.ndim == 3 and calls.count(2) == 1 and len(y) == 2:
            raise torch.OutOfMemoryError("no memory left")
        backward(y, *rest)

    monkeypatch.setattr(torch.Tensor, "backward", limited)
    monkeypatch.setattr(calibrate, "_STEP_TOKENS", 1024)
    report = quantize(source, tmp_path / "small", bits=5.0, tokens=3072)
    assert any("ran out of memory" in note for note in report.numbers["notes"])
    scales = [
        np.asarray(open_artifact(tmp_path / name).linear("layers.0.attn.o").scale)
        for name in ("large", "small")
    ]
    np.testing.assert_allclose(scales[0], scales[1], rtol=2e-3)
