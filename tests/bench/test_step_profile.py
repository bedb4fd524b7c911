"""Where a step's time goes, on a toy model: the parts are all there and add up."""

import json
from pathlib import Path

import pytest

from bench.step_profile import labels, main
from rockledge.synth import synth_artifact


def test_the_parts_of_a_step_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = synth_artifact("toy", tmp_path / "toy")
    assert (
        main([str(artifact), "--threads", "1", "--batch", "2", "--depth", "40", "--steps", "3", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert sum(found["parts_ms"].values()) == pytest.approx(found["step_ms"], abs=0.01)
    assert list(found["parts_ms"].values()) == sorted(found["parts_ms"].values(), reverse=True)
    assert {"linear: qkv", "linear: head", "attention", "embed"} <= found["parts_ms"].keys()
    assert main([str(artifact), "--steps", "2"]) == 0
    assert "ms a step" in capsys.readouterr().out


def test_linears_are_told_apart_by_their_place() -> None:
    layer = ["norm_quant", "linear", "attention", "linear", "linear", "gated_quant", "linear"]
    found = labels([*layer, *layer, "gather", "linear"])
    assert [name for name in found if name.startswith("linear")] == [
        *("linear: qkv", "linear: o", "linear: gate, up", "linear: down") * 2,
        "linear: head",
    ]
