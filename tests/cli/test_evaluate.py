"""`rockledge eval`: the wiring of engine, float reference and text."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rockledge.eval.kl_words import kl_in_words
from rockledge.synth import synth_checkpoint

Run = Callable[..., Any]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of some windows of a toy model."""
    path = tmp_path / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 8)
    return path


def test_two_unrelated_models_diverge(rockledge: Run, artifact: Path, checkpoint: Path, text: Path) -> None:
    done = rockledge(
        *(
            "eval",
            artifact,
            "--reference",
            checkpoint,
            "--text",
            text,
            "--window",
            64,
            "--windows",
            3,
            "--json",
        )
    )
    assert done.code == 0
    body = done.json
    assert (body["windows"], body["window_tokens"], body["scored_tokens"]) == (3, 64, 3 * 31)
    assert body["kl_mean_nats"] > 0.5
    assert body["reference_perplexity"] == pytest.approx(300, rel=0.5)  # random weights know nothing
    assert body["reference_stored"] == "safetensors, bfloat16"
    people = rockledge("eval", artifact, "--reference", checkpoint, "--text", text, "--window", 64)
    assert "KL divergence" in people.out


def test_probes_are_answered_by_both_models(
    rockledge: Run, artifact: Path, checkpoint: Path, text: Path
) -> None:
    words = ["eval", artifact, "--reference", checkpoint, "--text", text, "--window", 64, "--windows", 1]
    body = rockledge(*words, "--probes", 2, "--probe-seed", 5, "--json").json["probes"]
    assert body["seed"] == 5
    assert [family["family"] for family in body["families"]][-1] == "all"
    assert [family["probes"] for family in body["families"]] == [2] * 7 + [14]
    everything = body["families"][-1]
    assert (
        0 <= everything["accuracy_ci95"][0] <= everything["accuracy"] <= everything["accuracy_ci95"][1] <= 1
    )
    people = rockledge(*words, "--probes", 2, "--probe-seed", 5)
    low, high = everything["accuracy_ci95"]
    shown = f"{everything['accuracy']:.0%} ({100 * low:.0f}-{100 * high:.0f})"
    (line,) = [line for line in people.out.splitlines() if line.startswith("all ")]
    assert shown in line
    assert "probes" not in rockledge(*words, "--json").json


def test_mistakes_are_one_sentence(rockledge: Run, artifact: Path, checkpoint: Path, text: Path) -> None:
    binary = text.with_name("binary")
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (text.with_name("missing"), binary):
        done = rockledge("eval", artifact, "--reference", checkpoint, "--text", file)
        assert done.code == 2
        assert file.name in done.err
    short = rockledge("eval", artifact, "--reference", checkpoint, "--text", text)
    assert short.code == 2
    assert "longer text" in short.err
    swapped = rockledge("eval", artifact, "--reference", artifact, "--text", text, "--window", 64)
    assert swapped.code == 1
    assert len(swapped.err.splitlines()[-1]) > 20


def test_line_ends_are_scored_as_they_are(
    rockledge: Run, artifact: Path, checkpoint: Path, text: Path
) -> None:
    """A token or more for every carriage return: CR LF is not read as LF."""
    asked = ("eval", artifact, "--reference", checkpoint, "--text", text, "--window", 16, "--json")
    tokens = []
    for end in ("\n", "\r\n"):
        text.write_bytes(("abc" + end).encode() * 64)
        tokens.append(rockledge(*asked).json["windows"])
    assert tokens[1] > tokens[0]


def test_only_the_source_is_a_reference(
    rockledge: Run, checkpoint: Path, text: Path, tmp_path: Path, one_thread: None
) -> None:
    made = tmp_path / "made"
    quick = ("--tokens", 512, "--fast", "--bits", 8)
    assert rockledge("quantize", checkpoint, "-o", made, *quick).code == 0
    flags = ("--text", text, "--window", 64, "--windows", 1)
    right = rockledge("eval", made, "--reference", checkpoint, *flags)
    assert right.code == 0
    assert kl_in_words(0.0) in right.out
    other = synth_checkpoint("toy", tmp_path / "other", seed=4)
    refused = rockledge("eval", made, "--reference", other, *flags)
    assert refused.code == 2
    assert f"{other} is not what {made} was made from (toy-checkpoint)" in refused.err
    forced = rockledge("eval", made, "--reference", other, *flags, "--force")
    assert forced.code == 0
    assert "is not what" in forced.err
    # The same weights elsewhere are the source still.
    moved = shutil.copytree(checkpoint, tmp_path / "moved")
    assert rockledge("eval", made, "--reference", moved, *flags).code == 0


def test_an_artifact_that_does_not_say_its_source_is_noted(
    rockledge: Run, artifact: Path, checkpoint: Path, text: Path
) -> None:
    done = rockledge("eval", artifact, "--reference", checkpoint, "--text", text, "--window", 64)
    assert done.code == 0
    assert "does not say what it was made from" in done.err
