"""`rockledge synth` writes what `inspect` then finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_an_artifact_of_one_width(rockledge: Run, tmp_path: Path) -> None:
    done = rockledge("synth", "toy", "-o", tmp_path / "toy", "--bits", "3", "--json")
    assert done.code == 0
    assert done.json["kind"] == "artifact"
    for part in rockledge("inspect", tmp_path / "toy", "--json").json["parts"]:
        assert list(part["weights_by_bits"]) == ["3"]


def test_a_checkpoint(rockledge: Run, tmp_path: Path) -> None:
    assert (
        rockledge("synth", "toy", "-o", tmp_path / "toy", "--checkpoint", "--json").json["kind"]
        == "checkpoint"
    )
    assert rockledge("inspect", tmp_path / "toy", "--json").json["kind"] == "checkpoint"


def test_mistakes_are_said(rockledge: Run, tmp_path: Path) -> None:
    unknown = rockledge("synth", "70b", "-o", tmp_path / "x")
    assert unknown.code == 2
    assert "135m" in unknown.err
    both = rockledge("synth", "toy", "-o", tmp_path / "x", "--checkpoint", "--bits", "3")
    assert both.code == 2
    assert "--bits" in both.err
    assert not (tmp_path / "x").exists()
