"""What the console shows of a model: widths as `inspect` has them, measurements as the report has them."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from rockledge.artifact import Artifact, open_artifact
from rockledge.cli.inspect import parts
from rockledge.model.chat import ChatTemplate
from rockledge.serve.console.model_sheet import measurements, model_sheet
from rockledge.serve.served_model import ServedModel
from rockledge.synth import synth_artifact

CHAT = ChatTemplate("{{ messages[0].content }}", {})


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random artifact, without a report."""
    return synth_artifact("toy", tmp_path_factory.mktemp("models") / "toy", seed=5)


def sheet_of(artifact: Artifact) -> dict[str, Any]:
    sheet = model_sheet(ServedModel.of(artifact, "toy", 256, CHAT, ["other"]), artifact)
    return json.loads(json.dumps(sheet, allow_nan=False))


def with_report(toy: Path, folder: Path, text: str) -> Artifact:
    copy = shutil.copytree(toy, folder / "copy")
    (copy / "report.json").write_text(text)
    return open_artifact(copy)


def test_the_widths_are_those_of_inspect(toy: Path) -> None:
    artifact = open_artifact(toy)
    sheet = sheet_of(artifact)
    assert (sheet["name"], sheet["aliases"], sheet["context"]) == ("toy", ["other"], 256)
    assert sheet["bytes"] == artifact.tensor_bytes
    matrices = sheet["matrices"]
    assert {matrix["layer"] for matrix in matrices} == {None, *range(artifact.config.layers)}
    for part in parts(artifact):
        own = [matrix for matrix in matrices if matrix["role"] == part.role]
        weights = [matrix["rows"] * matrix["cols"] for matrix in own]
        bits = sum(w * matrix["bits_per_weight"] for w, matrix in zip(weights, own, strict=True))
        assert bits / sum(weights) == pytest.approx(part.bits_per_weight)
        for width, count in part.weights_by_bits.items():
            shares = [matrix["share_by_width"].get(str(width), 0) for matrix in own]
            assert sum(w * s for w, s in zip(weights, shares, strict=True)) == pytest.approx(count)
    assert all(math.isclose(sum(matrix["share_by_width"].values()), 1) for matrix in matrices)


def test_an_artifact_without_a_report_has_no_measurements(toy: Path) -> None:
    sheet = sheet_of(open_artifact(toy))
    assert (sheet["calibrated"], sheet["measured"], sheet["notes"]) == (None, [], [])


def test_one_that_was_made_at_once_says_so(toy: Path, tmp_path: Path) -> None:
    report = {"model": "a.gguf", "stored": "GGUF", "notes": ["A note."], "calibrated": False}
    sheet = sheet_of(with_report(toy, tmp_path, json.dumps(report)))
    assert (sheet["calibrated"], sheet["measured"]) == (False, [])
    assert (sheet["source"], sheet["stored"], sheet["notes"]) == ("a.gguf", "GGUF", ["A note."])


def test_measurements_of_a_calibrated_one_and_of_the_demo(toy: Path, tmp_path: Path) -> None:
    measured = {"kl_mean_nats": 0.05, "top1_agreement": 0.9, "perplexity": 12.5, "scored_tokens": 512}
    report = {"divergence": measured, "evaluation": {"text": "Alice", "kl_mean_nats": 0.07, "flips": 3}}
    sheet = sheet_of(with_report(toy, tmp_path, json.dumps(report)))
    assert sheet["calibrated"] is True
    assert sheet["measured"] == [
        {"on": "held-out text of the calibration mix", **measured},
        {"on": "Alice", "kl_mean_nats": 0.07},
    ]


@pytest.mark.parametrize(
    "report",
    [
        {"divergence": None, "evaluation": []},
        {"divergence": {"kl_mean_nats": "0.1", "perplexity": math.nan, "top1_agreement": True}},
        {"divergence": {"kl_mean_nats": math.inf}},
        {"evaluation": {"text": 5}},
    ],
)
def test_what_is_not_a_number_is_left_out(report: dict[str, Any]) -> None:
    assert measurements(report) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "\\ud800", "stored": 5, "notes": ["\\udfff", 7], "divergence": {"kl_mean_nats": NaN}}',
        '{"notes": "a", "evaluation": {"text": "\\ud800", "perplexity": 3.5}}',
    ],
)
def test_a_strange_report_can_be_sent(toy: Path, tmp_path: Path, text: str) -> None:
    sheet = sheet_of(with_report(toy, tmp_path, text))
    assert json.dumps(sheet, ensure_ascii=False).encode()


def test_a_damaged_report_is_a_note(toy: Path, tmp_path: Path) -> None:
    sheet = sheet_of(with_report(toy, tmp_path, "{"))
    assert sheet["measured"] == []
    assert "report.json" in sheet["notes"][0]
