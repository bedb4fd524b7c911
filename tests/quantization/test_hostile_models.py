"""Models and machines that are not as they should be: dead channels, NaN, singular moments, full disks."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.quantization.changed_checkpoint import changed

from rockledge.artifact import open_artifact
from rockledge.errors import CheckpointError, RockledgeError
from rockledge.quantization.calibration.calibrate import BlockStatistics
from rockledge.quantization.pipeline import estimate, quantize
from rockledge.quantization.rounding import measure
from rockledge.quantization.work.store import WorkDirectory
from rockledge.synth import synth_checkpoint

TOKENS = 2048


def test_dead_channels_do_no_harm(tmp_path: Path) -> None:
    def kill(name: str, values: npt.NDArray[np.float32]) -> None:
        if name.endswith(("ffn.up", "ffn.gate")):
            values[:60] = 0  # inputs of down that are always zero
        if name.endswith("attn.v"):
            values[:16] = 0  # a head that says nothing
        if name.endswith("attn.q"):
            values[3] = 0
        if name == "layers.1.ffn.down":
            values[:] = 0  # a block that does nothing

    report = quantize(changed(tmp_path, kill), tmp_path / "out", bits=5.0, tokens=TOKENS)
    artifact = open_artifact(tmp_path / "out")
    artifact.verify()
    for name in artifact.linears:
        assert np.isfinite(artifact.linear(name).scale).all()
    assert 0 <= report.numbers["divergence"]["kl_mean_nats"] < 0.05


def test_numbers_that_overflow_are_named_by_their_block(tmp_path: Path) -> None:
    def explode(name: str, values: npt.NDArray[np.float32]) -> None:
        if name in ("layers.1.ffn.up", "layers.1.ffn.down"):
            values *= np.float32(1e30)

    with pytest.raises(CheckpointError, match=r"block 1 .*NaN or infinite"):
        quantize(changed(tmp_path, explode), tmp_path / "out", bits=5.0, tokens=TOKENS)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_singular_moments_are_damped_until_they_are_not_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = measure.block_statistics

    def singular(*arguments: Any) -> tuple[BlockStatistics, npt.NDArray[np.float32]]:
        found, gradients = true(*arguments)
        seen = found.moments["ffn.up"]
        # As rounding errors may make it: one direction slightly below zero.
        size = seen.diagonal().mean() * seen.shape[0]
        one = torch.full((seen.shape[0], 1), seen.shape[0] ** -0.5)
        moments = seen - (0.02 * size) * (one @ one.T)
        moments.diagonal().clamp_min_(1e-9)
        return replace(found, moments={**found.moments, "ffn.up": moments}), gradients

    source = synth_checkpoint("toy", tmp_path / "model")
    monkeypatch.setattr(measure, "block_statistics", singular)
    report = quantize(source, tmp_path / "out", bits=5.0, tokens=TOKENS)
    named = [note for note in report.numbers["notes"] if "singular" in note]
    assert any("layers.0.ffn.up" in note and "raised to" in note for note in named)
    assert "singular" in (tmp_path / "out" / "report.md").read_text()
    assert np.isfinite(open_artifact(tmp_path / "out").linear("layers.0.ffn.up").scale).all()


def test_a_model_too_large_for_the_disk_is_told_before_the_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    steps: list[str] = []
    source = synth_checkpoint("toy", tmp_path / "model")
    with pytest.raises(RockledgeError, match=r"needs \d+\.\d MB of disk .* 1\.0 kB are free"):
        quantize(
            source, tmp_path / "out", bits=5.0, tokens=TOKENS,
            progress=lambda stage, done, total: steps.append(stage),
        )  # fmt: skip
    assert steps == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_disk_check_asks_for_what_a_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = synth_checkpoint("toy", tmp_path / "model")
    asked: list[int] = []

    def spy(work: Path, work_bytes: int, out: Path, tensor_bytes: int) -> None:
        asked.append(work_bytes)

    most: list[int] = []

    def weigh(stage: str, done: int, total: int) -> None:
        most.append(sum(file.stat().st_size for file in (tmp_path / "work").iterdir()))

    monkeypatch.setattr("rockledge.quantization.pipeline.check_room", spy)
    quantize(source, tmp_path / "out", bits=5.0, tokens=TOKENS, work=tmp_path / "work", progress=weigh)
    assert 0.5 * asked[0] < max(most) < 1.2 * asked[0]
    assert estimate(source, bits=5.0, tokens=TOKENS).work_bytes == asked[0]


def test_what_a_stopped_run_left_counts_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rockledge.quantization.work.disk import check_room

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10000, 9000, 1000))
    work = WorkDirectory(tmp_path / "work").path
    with pytest.raises(RockledgeError):
        check_room(work, 1500, tmp_path, 300)
    (work / "inputs.0.array").write_bytes(bytes(900))
    check_room(work, 1500, tmp_path, 300)
    with pytest.raises(RockledgeError):
        check_room(work, 1500, tmp_path, 500)
