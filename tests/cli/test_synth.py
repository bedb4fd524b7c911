"""`rockledge synth` writes what `inspect` then finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize("kind", [(), ("--checkpoint",)])
def test_nothing_is_overwritten_unasked(rockledge: Run, tmp_path: Path, kind: tuple[str, ...]) -> None:
    place = tmp_path / "toy"
    assert rockledge("synth", "toy", "-o", place, *kind).code == 0
    before = (place / "model.safetensors").read_bytes()
    refused = rockledge("synth", "toy", "-o", place, "--seed", 1, *kind)
    assert refused.code == 1
    assert "add --overwrite to replace it" in refused.err
    assert (place / "model.safetensors").read_bytes() == before
    assert rockledge("synth", "toy", "-o", place, "--seed", 1, *kind, "--overwrite").code == 0
    assert (place / "model.safetensors").read_bytes() != before


def test_overwrite_replaces_nothing_else(rockledge: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for kind in ((), ("--checkpoint",)):
        done = rockledge("synth", "toy", "-o", tmp_path, *kind, "--overwrite")
        assert done.code == 1
        assert "choose another place" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
