"""`rockledge distill` on the command line; what it does is tested in tests/distillation."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rockledge.cli.main import main

RECIPES = Path(__file__).parents[2] / "recipes"

# Parameters in billions as published: arXiv 2408.11796 (Llama-3.1-Minitron-4B-Width, 4.5), the Hub's pages of
# meta-llama/Llama-3.2-3B-Instruct (3.21) and Qwen/Qwen3-4B (4.02). Llama-3.2-3B with a head of its own, as
# its teacher has, has 128,256 * 3,072 more.
STUDENTS = {
    "llama-3-8b-to-4b": (8.03, 4.5),
    "llama-3-8b-to-3b": (8.03, 3.61),
    "llama-3-8b-teaches-3b": (8.03, 3.21),
    "qwen3-8b-teaches-qwen3-4b": (8.19, 4.02),
}


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["distill", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_dry_run_needs_no_weights_and_no_pytorch(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch", "transformers", "accelerate", "peft"):
        monkeypatch.setitem(sys.modules, module, None)
    body = answer(capsys, "--recipe", str(RECIPES / f"{name}.yaml"), "--dry-run")
    teacher, student = STUDENTS[name]
    assert body["teacher"]["parameters"] / 1e9 == pytest.approx(teacher, abs=0.01)
    assert body["student"]["parameters"] / 1e9 == pytest.approx(student, abs=0.02)
    memory = dict(body["memory_gb_per_gpu"])
    assert memory.pop("fits") is True
    peak = memory.pop("peak")
    assert max(memory.values()) < peak < sum(memory.values()) + 0.05
    assert body["time"]["gpu_hours"] > 0
    assert body["time"]["usd"] == pytest.approx(2.5 * body["time"]["gpu_hours"], abs=0.05)
    assert body["training"]["tokens"] >= 1638400
    assert body["basis"] == "modelled"


def test_a_dry_run_takes_the_shapes_that_prune_would_make(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = (RECIPES / "llama-3-8b-to-4b.yaml").read_text(encoding="utf-8")
    assert "hidden: 3072" in text
    recipe = tmp_path / "odd.yaml"
    recipe.write_text(text.replace("hidden: 3072", "hidden: 3000"), encoding="utf-8")
    assert main(["distill", "--recipe", str(recipe), "--dry-run"]) == 2
    assert "hidden 3000 is not a multiple of 32 heads" in capsys.readouterr().err


def test_flags_count_more_than_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--recipe", str(RECIPES / "llama-3-8b-teaches-3b.yaml"), "--dry-run"]
    usual = answer(capsys, *recipe)
    changed = answer(capsys, *recipe, "--tokens", "80e6", "--micro-batch", "1")
    assert changed["training"]["tokens"] == pytest.approx(2 * usual["training"]["tokens"], rel=1e-2)
    assert changed["memory_gb_per_gpu"]["activations"] < usual["memory_gb_per_gpu"]["activations"]
    cached = answer(capsys, *recipe, "--cache-logits", "somewhere")
    assert cached["memory_gb_per_gpu"]["teacher"] == 0


def test_a_dry_run_counts_the_on_policy_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """Its operations, the weights that are read for every token, and the teacher, which no cache replaces."""
    recipe = ["--recipe", str(RECIPES / "llama-3-8b-teaches-3b.yaml"), "--dry-run"]
    usual = answer(capsys, *recipe)
    longer = answer(capsys, *recipe, "--on-policy", "100", "--on-policy-answer", "256")
    assert usual["training"]["on_policy"] is None
    own = longer["training"]["on_policy"]
    assert (own["steps"], own["answers"], own["longest_answer"]) == (100, 3200, 256)
    assert own["learning_rate"] == pytest.approx(5e-6)
    parameters = usual["student"]["parameters"]
    writing = 100 * 256 * 4 * parameters / 3.35e12 / 3600
    # At least two operations a weight for each token that is read, and learnt.
    reading = 4 * parameters * 100 * 32 * 1024 / (989e12 * 0.38) / 3600
    more = longer["time"]["gpu_hours"] - usual["time"]["gpu_hours"]
    assert writing + reading < more < writing + 10 * reading
    cached = answer(capsys, *recipe, "--cache-logits", "somewhere", "--on-policy", "100")
    assert cached["memory_gb_per_gpu"]["teacher"] == usual["memory_gb_per_gpu"]["teacher"]
    many = ["--recipe", str(RECIPES / "llama-3-8b-to-4b.yaml"), "--dry-run", "--on-policy", "9"]
    assert main(["distill", *many]) == 2
    assert "runs on one GPU, and the recipe's hardware has 64" in capsys.readouterr().err
    assert main(["distill", *recipe, "--on-policy", "100"]) == 0
    assert "Then 100 steps on 3,200 answers of its own, of at most 512 tokens" in capsys.readouterr().out


def test_pairs_that_are_written_first_count_too(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--recipe", str(RECIPES / "llama-3-8b-teaches-3b.yaml"), "--dry-run"]
    usual = answer(capsys, *recipe)
    more = answer(capsys, *recipe, "--documents", "d", "--synthesize", "2e3")
    assert more["synthesis"]["pairs"] == 2000
    # An 8B does about 16 billion operations for a token.
    added = more["time"]["flops"] - usual["time"]["flops"]
    assert added == pytest.approx(16e9 * more["synthesis"]["least_tokens"], rel=0.1)


def test_people_see_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--recipe", str(RECIPES / "llama-3-8b-to-4b.yaml"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Student: 4.51 billion" in shown
    assert "It fits 80 GiB" in shown
    assert "arXiv 2408.11796" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "0 models given, expected TEACHER and STUDENT"),
        (["a"], "1 model given, expected TEACHER and STUDENT"),
        (["a", "b"], "-o says where the student goes"),
        (["a", "b", "-o", "c"], "add --data FILE"),
        (["a", "--synthesize", "9", "-o", "c"], "and documents from what; give both"),
        (["a", "--synthesize", "9", "--documents", "d"], "-o says where the pairs go"),
        (["a", "b", "-o", "c", "--synthesize", "0"], "'0' is not a number of questions and answers"),
        (
            ["a", "b", "-o", "c", "--data", "d", "--data-weight", "2"],
            "not a number of at least 0 and at most 1",
        ),
        (["a", "b", "-o", "c", "--data", "d", "--trainer", "x"], "write one such as weight_decay=0.1"),
        (["llama-3-8b", "llama-3.2-3b", "--dry-run"], "needs --tokens"),
        (
            ["llama-3-8b", "llama-3.2-3b", "--dry-run", "--tokens", "1e6", "--sequence", "16384"],
            "longer than the teacher's context of 8192",
        ),
        (
            ["--recipe", str(RECIPES / "llama-3-8b-to-4b.yaml"), "--dry-run", "--batch", "96"],
            "a batch of 96 sequences cannot be shared by 64 GPUs",
        ),
        (["llama-3-8b", "lama-3.2-3b", "--dry-run", "--tokens", "1e6"], "such as llama-3.2-3b"),
        (["--recipe", str(RECIPES / "llama-3-8b-to-4b.yaml"), "-o", "x"], "the recipe names no student"),
    ],
)
def test_what_is_missing_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *words]) == 2
    assert said in capsys.readouterr().err


def test_missing_packages_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rockledge.cli.distill.find_spec", lambda name: None if name == "peft" else object())
    assert main(["distill", "a", "b", "-o", "c", "--data", "d"]) == 1
    said = capsys.readouterr().err
    assert "distill needs peft, which is not installed; run: " in said
