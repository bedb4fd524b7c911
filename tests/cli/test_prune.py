"""`rockledge prune`: a checkpoint that quantize takes; a run without weights; wishes that cannot be met."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.pruning.teachers import letters, teacher

Run = Callable[..., Any]
SMALL = ("--tokens", 512, "--force")


def test_a_student_is_made_and_quantized(rockledge: Run, tmp_path: Path, one_thread: None) -> None:
    source, _ = teacher("llama-tied", tmp_path / "teacher")
    out, text = tmp_path / "student", letters(tmp_path / "text.txt")
    done = rockledge("prune", source, "-o", out, "--layers", 3, "--calibration", text, *SMALL, "--json")
    assert done.code == 0
    assert done.json["student"]["layers"] == 3
    assert done.err.startswith("Estimate: ")
    made = rockledge("quantize", out, "-o", tmp_path / "artifact", "--instant", "--json")
    assert made.code == 0
    again = rockledge("prune", source, "-o", out, "--layers", 2, *SMALL)
    assert (again.code, "not empty" in again.err) == (2, True)


def test_a_run_without_weights_counts_exactly(rockledge: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nteacher: llama-3-8b\nprune: {layers: 32, hidden: 3072, ffn: 9216}\n")
    body = rockledge("prune", "--recipe", recipe, "--dry-run", "--json").json
    (shape,) = body["shapes"]
    # Embedding and head; attention and feed-forward of 32 layers; norms.
    attention, ffn = 3072 * (2 * 4096 + 2 * 1024), 3 * 3072 * 9216
    assert shape["parameters"] == 2 * 128256 * 3072 + 32 * (attention + ffn + 2 * 3072) + 3072
    assert body["estimate"]["seconds"] > 0
    assert body["estimate"]["peak_memory_mb"] > 1000
    # A flag counts before the recipe.
    more = rockledge("prune", "--recipe", recipe, "--ffn", 4096, "--dry-run", "--json").json
    assert more["shapes"][0]["ffn"] == 4096
    assert "ffn 9000: not in steps" in rockledge("prune", "llama-3-8b", "--ffn", 9000, "--dry-run").out


def test_a_board_decides(rockledge: Run) -> None:
    flags = ("--fit", "rk3588-8gb", "--by", "width", "--dry-run", "--json")
    slow, fast = (rockledge("prune", "llama-3-8b", "--decode-tok-s", s, *flags).json for s in (8, 16))
    assert max(one["parameters"] for one in fast["shapes"]) < min(one["parameters"] for one in slow["shapes"])


@pytest.mark.parametrize(
    "flags, code, hint",
    [
        (("llama-3-8b", "--layers", "8"), 2, "no place for the result"),
        (("llama-3-8b", "--dry-run"), 2, "nothing to prune to"),
        (("--layers", "8", "--dry-run"), 2, "there is no teacher"),
        (("llama-3-8b", "--target-params", "9b", "--dry-run"), 2, "only 8.03b"),
        (("llama-3-8b", "--target-params", "few", "--dry-run"), 2, "3.5b or 82m"),
        (("llama-3-8b", "--target-params", "1m", "--dry-run"), 1, "smallest that can be made"),
        (("llama-3-8b", "--heads", "26", "--dry-run"), 2, "24 and 28"),
        (("llama-3-8b", "--heads", "24", "--dry-run"), 2, "is not a multiple of 24 heads"),
        (("llama-3-8b", "--layers", "99", "--dry-run"), 2, "teacher's 32"),
        (("llama-3-8b", "--fit", "toaster", "--dry-run"), 2, "rk3588-8gb"),
        (("llama-3-8b", "--recipe", "nowhere.yaml", "--dry-run"), 2, "nowhere.yaml"),
    ],
)
def test_impossible_wishes_are_one_sentence(
    rockledge: Run, flags: tuple[str, ...], code: int, hint: str
) -> None:
    done = rockledge("prune", *flags, "--json")
    assert done.code == code
    assert hint in json.loads(done.out)["error"]


def test_an_artifact_is_refused_without_weights_too(rockledge: Run, artifact: Path) -> None:
    done = rockledge("prune", artifact, "--layers", 1, "--dry-run")
    assert (done.code, "is an artifact" in done.err) == (1, True)
