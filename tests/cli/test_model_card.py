"""The model card: its front matter as the Hub reads it, its text the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rockledge.artifact import open_artifact
from rockledge.cli.model_card import model_card

Run = Callable[..., Any]


def front(card: str) -> dict[str, object]:
    opened, text, rest = card.split("---\n", 2)
    assert opened == ""
    assert rest.startswith("\n#")
    return yaml.safe_load(text)


def test_the_source_is_named_and_its_licence_kept(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    source = {
        "hub_id": "google/gemma-3-270m",
        "licence": "other",
        "licence_name": "gemma",
        "licence_link": "https://ai.google.dev/gemma/terms",
    }
    (copy / "report.json").write_text(json.dumps({"source": source}))
    (copy / "report.md").write_text("# A report\n\nNumbers.\n")
    card = model_card(open_artifact(copy), "me/gemma")
    assert front(card) == {
        "library_name": "rockledge",
        "tags": ["rockledge", "rk3588"],
        "license": "other",
        "license_name": "gemma",
        "license_link": "https://ai.google.dev/gemma/terms",
        "base_model": "google/gemma-3-270m",
        "base_model_relation": "quantized",
        "pipeline_tag": "text-generation",
    }
    assert "# A report\n\nNumbers.\n\n## Use it" in card
    assert 'rockledge run me/gemma "..."' in card
    assert front(model_card(open_artifact(copy), "me/gemma", "mit"))["license"] == "mit"


def test_an_artifact_without_a_report_has_a_card_too(artifact: Path) -> None:
    card = model_card(open_artifact(artifact), "me/toy")
    assert "license" not in front(card)
    assert "# me/toy" in card


@pytest.mark.usefixtures("one_thread")
def test_quantize_keeps_the_licence_of_its_source(rockledge: Run, checkpoint: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--toy" / "snapshots" / "c1"
    shutil.copytree(checkpoint, snapshot)
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n# Toy\n")
    out = tmp_path / "out"
    made = rockledge("quantize", snapshot, "-o", out, "--bits", 5, "--fast", "--tokens", 300, "--force")
    assert made.code == 0, made.err
    card = model_card(open_artifact(out), "me/toy")
    assert (front(card)["license"], front(card)["base_model"]) == ("mit", "org/toy")
    assert (out / "report.md").read_text().startswith("# org/toy\n")
