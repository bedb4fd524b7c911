"""Quantisation-aware distillation from end to end: what learns is what is written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.distillation.pair import Pair, made_model

from rockledge.artifact import Artifact, open_artifact
from rockledge.cli.main import main
from rockledge.distillation.distil import distil
from rockledge.distillation.report import Report
from rockledge.errors import ArtifactError, UsageError
from rockledge.formats.packing import dequantize
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.tokenizer import Tokenizer
from rockledge.quantization import pipeline
from rockledge.quantization.choosing.recipe import read_recipe
from rockledge.quantization.float_model.forward import forward
from rockledge.quantization.learning.linear import LearningLinear
from rockledge.quantization.learning.start import asked_recipe
from rockledge.quantization.pipeline import quantize
from rockledge.quantization.steps import Steps
from rockledge.runtime.engine import Engine

QUICK = Steps(moments="diagonal", rounding="nearest", tables="normal", token_weights="equal")


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> object:
    """Drawing widths takes longer than the rest of quantizing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "widths_picture", lambda plan, prices: None)
        yield


@pytest.fixture(scope="module")
def recipe(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six bits a weight by the steps that take least time."""
    made = asked_recipe("6", open_checkpoint(pair.student))
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(replace(made, tokens=2048, steps=QUICK).text(), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def whole(
    pair: Pair, recipe: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Path, list[torch.Tensor]]:
    """A run that nothing disturbs: its report, its artifact, and the weights that every linear was last
    computed with, in the order of the linears."""
    out, used = tmp_path_factory.mktemp("whole") / "student", dict[int, torch.Tensor]()
    plain = LearningLinear.forward

    def recorded(self: LearningLinear) -> torch.Tensor:
        real = plain(self)
        used[id(self)] = real.detach()
        return real

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningLinear, "forward", recorded)
        report = distil(pair.teacher, pair.student, out, pair.settings(quantization_aware=recipe))
    return report, out, list(used.values())


def weights(artifact: Artifact) -> list[np.ndarray]:
    return [dequantize(artifact.linear(name)) for name in artifact.linears]


def test_it_comes_closer_to_its_teacher_than_plain_rounding(
    whole: tuple[Report, Path, list[torch.Tensor]],
) -> None:
    """Before the first step it is the plain artifact: the student rounded by the same recipe."""
    before, after = (whole[0].numbers[f"held_out_{when}"] for when in ("before", "after"))
    assert after["kl"] < 0.8 * before["kl"]


def test_the_codes_are_those_of_the_last_step(whole: tuple[Report, Path, list[torch.Tensor]]) -> None:
    _, out, used = whole
    artifact = open_artifact(out)
    artifact.verify()
    found = weights(artifact)
    assert len(found) == len(used)
    for stored, real in zip(found, used, strict=True):
        np.testing.assert_array_equal(stored, real.numpy())


def test_it_begins_as_what_quantize_makes_and_ends_elsewhere(
    whole: tuple[Report, Path, list[torch.Tensor]], pair: Pair, recipe: str, tmp_path: Path
) -> None:
    """The same widths, tables, and table of every group; other codes and scales."""
    quantize(pair.student, tmp_path / "plain", recipe=recipe)
    plain, learnt = open_artifact(tmp_path / "plain"), open_artifact(whole[1])
    assert plain.linears == learnt.linears
    assert plain.recipe == learnt.recipe
    for name in plain.linears:
        one, other = plain.linear(name), learnt.linear(name)
        np.testing.assert_array_equal(one.tables, other.tables)
        np.testing.assert_array_equal(one.index, other.index)
        assert not np.array_equal(one.codes, other.codes)
        assert not np.array_equal(one.scale, other.scale)
        assert float(np.abs(other.scale / one.scale - 1).max()) < 0.2


def test_what_is_written_runs_and_reports(whole: tuple[Report, Path, list[torch.Tensor]]) -> None:
    report, out, _ = whole
    assert not list(out.parent.glob(".*"))
    assert open_artifact(out).report == report.numbers
    assert report.numbers["bits_per_weight"] <= 6
    text = (out / "report.md").read_text()
    assert "KL from the teacher" in text
    assert "| attn.q |" in text
    with Engine.load(out, threads=1) as engine:
        assert np.isfinite(engine.logits([5, 6, 7])).all()


@pytest.mark.parametrize("settings", [{"micro_batch": 1}, {"checkpointing": True}], ids=str)
def test_ways_to_compute_it_give_the_same_curve(
    settings: dict[str, object],
    whole: tuple[Report, Path, list[torch.Tensor]],
    pair: Pair,
    recipe: str,
    tmp_path: Path,
) -> None:
    """Sums in another order may round a number to another integer, so losses are near rather than equal."""
    report = distil(
        pair.teacher, pair.student, tmp_path / "out", pair.settings(quantization_aware=recipe, **settings)
    )
    assert report.numbers["held_out_after"]["kl"] == pytest.approx(
        whole[0].numbers["held_out_after"]["kl"], rel=0.02
    )


def test_it_takes_back_what_rounding_costs(pair: Pair, recipe: str, tmp_path: Path) -> None:
    """Taught by the float model that it was made of, its KL is the cost of rounding and nothing else. Run by
    the native runtime on the text, it costs less than what `quantize` makes with error feedback, too."""
    learning = pair.settings(quantization_aware=recipe, learning_rate=2e-3, tokens=48 * 4 * 30)
    numbers = distil(pair.student, pair.student, tmp_path / "aware", learning).numbers
    assert numbers["held_out_after"]["kl"] < 0.7 * numbers["held_out_before"]["kl"]
    checkpoint = open_checkpoint(pair.student)
    with_feedback = replace(read_recipe(Path(recipe)), steps=Steps(tables="normal", token_weights="equal"))
    (tmp_path / "recipe.yaml").write_text(with_feedback.text(), encoding="utf-8")
    quantize(checkpoint, tmp_path / "plain", recipe=tmp_path / "recipe.yaml")
    text = " ".join(json.loads(line)["text"] for line in pair.data.read_text().splitlines()[:6])
    tokens = Tokenizer.from_files(checkpoint.files()).encode(text, bos=True)[:400]
    with torch.no_grad():
        exact = forward(checkpoint, torch.tensor([tokens]))[0].double().log_softmax(-1)
    costs = []
    for name in ("aware", "plain"):
        with Engine.load(tmp_path / name, threads=1) as engine:
            found = torch.tensor(engine.logits(tokens)).double().log_softmax(-1)
        costs.append(float((exact.exp() * (exact - found)).sum(-1).mean()))
    assert costs[0] < 0.9 * costs[1]


def test_it_learns_in_bfloat16(pair: Pair, recipe: str, tmp_path: Path) -> None:
    settings = pair.settings(quantization_aware=recipe, bf16=True)
    numbers = distil(pair.teacher, pair.student, tmp_path / "out", settings).numbers
    assert numbers["held_out_after"]["kl"] < 0.8 * numbers["held_out_before"]["kl"]


def test_a_stopped_run_goes_on_to_the_same_artifact(
    whole: tuple[Report, Path, list[torch.Tensor]], pair: Pair, recipe: str, tmp_path: Path
) -> None:
    def stopping(stage: str, done: int, total: int) -> None:
        if stage == "distil" and done == 5:
            raise KeyboardInterrupt

    settings = pair.settings(quantization_aware=recipe)
    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, tmp_path / "out", settings, progress=stopping)
    assert not (tmp_path / "out").exists()
    distil(pair.teacher, pair.student, tmp_path / "out", settings)
    for stored, expected in zip(
        weights(open_artifact(tmp_path / "out")), weights(open_artifact(whole[1])), strict=True
    ):
        np.testing.assert_array_equal(stored, expected)


def test_another_recipe_is_another_run(pair: Pair, recipe: str, tmp_path: Path) -> None:
    def stopping(stage: str, done: int, total: int) -> None:
        if stage == "distil" and done == 4:
            raise KeyboardInterrupt

    file = tmp_path / "recipe.yaml"
    file.write_text(Path(recipe).read_text(), encoding="utf-8")
    settings = pair.settings(quantization_aware=str(file))
    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, tmp_path / "out", settings, progress=stopping)
    file.write_text(Path(recipe).read_text().replace("seed: 0", "seed: 1"), encoding="utf-8")
    with pytest.raises(UsageError, match="unfinished run with another quantization_aware"):
        distil(pair.teacher, pair.student, tmp_path / "out", settings)


def test_an_artifact_is_replaced_only_when_asked(
    whole: tuple[Report, Path, list[torch.Tensor]], pair: Pair, recipe: str
) -> None:
    with pytest.raises(ArtifactError, match="add --overwrite"):
        distil(pair.teacher, pair.student, whole[1], pair.settings(quantization_aware=recipe))


def test_a_student_with_a_head_of_its_own_learns(pair: Pair, recipe: str, tmp_path: Path) -> None:
    made_model(tmp_path / "student", hidden=32, layers=2, seed=1, tied=False)
    settings = pair.settings(quantization_aware=recipe, tokens=48 * 4 * 4)
    report = distil(pair.teacher, tmp_path / "student", tmp_path / "out", settings)
    assert report.numbers["held_out_after"]["kl"] < report.numbers["held_out_before"]["kl"]
    assert "head" in open_artifact(tmp_path / "out").linears


Wrong = Callable[[Pair, Path], str]


def _of_another_model(pair: Pair, place: Path) -> str:
    place.write_text("version: 1\nwidths: {embed: 7x4}\n")
    return str(place)


def _of_distil(pair: Pair, place: Path) -> str:
    place.write_text("title: no\ndistill: {tokens: 5}\n")
    return str(place)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (lambda pair, place: "nothing.yaml", "cannot be read as YAML"),
        (lambda pair, place: "-3", "expected 2.3 to 8.5"),
        (lambda pair, place: "nan", "expected 2.3 to 8.5"),
        (lambda pair, place: "0.5", "too small for this model"),
        (_of_another_model, "in the recipe or in the model only"),
        (_of_distil, "is not a recipe of version 1"),
    ],
    ids=["missing", "negative", "nan", "too-small", "another-model", "another-kind"],
)
def test_a_wrong_recipe_is_named(
    wanted: Wrong, sentence: str, pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = wanted(pair, tmp_path / "recipe.yaml")
    call = ["distill", str(pair.teacher), str(pair.student), "-o", str(tmp_path / "out")]
    call += ["--data", str(pair.data), "--sequence", "48", "--quantization-aware", asked]
    assert main(call) == 2 or "too small" in sentence
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", [{"lora": 4}, {"hidden_weight": 1.0}], ids=str)
def test_what_does_not_go_together_is_refused(other: dict[str, float], pair: Pair) -> None:
    with pytest.raises(UsageError, match="do not go together"):
        pair.settings(quantization_aware="4.25", **other)


def test_shared_weights_are_refused(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="which FSDP divides; start it with torchrun"):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(quantization_aware="4.25"))


def test_a_dry_run_does_not_guess(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["distill", str(pair.teacher), str(pair.student), "--dry-run", "--tokens", "1000"]
    assert main([*call, "--quantization-aware", "4.25"]) == 2
    assert "does not know what quantization-aware training takes" in capsys.readouterr().err


def test_a_recipe_of_distill_may_ask_for_it(
    pair: Pair, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number of bits is a number in YAML; here it is one that no artifact can have."""
    file = tmp_path / "distill.yaml"
    file.write_text(
        f"version: 1\nteacher: {pair.teacher}\nstudent: {pair.student}\n"
        f"distill: {{data: {pair.data}, sequence: 48, tokens: 400, quantization_aware: 32.5}}\n"
    )
    call = ["distill", "--recipe", str(file), "-o", str(tmp_path / "out")]
    assert main(call) == 2
    assert "the budget is 32.5 bits a weight" in capsys.readouterr().err
    assert main([*call, "--quantization-aware", recipe]) == 0
    assert "rockledge run takes it" in capsys.readouterr().out
    assert open_artifact(tmp_path / "out").bits_per_weight <= 6


def test_the_first_tokens_are_learnt_in_floats(pair: Pair, recipe: str, tmp_path: Path) -> None:
    """Then the artifact is of the student that these tokens taught, in the same order, and goes on there."""
    one = 48 * 4
    floats = distil(pair.teacher, pair.student, tmp_path / "floats", pair.settings(tokens=5 * one)).numbers
    settings = pair.settings(quantization_aware=recipe, float_tokens=5 * one)
    stages: list[str] = []
    report = distil(
        pair.teacher,
        pair.student,
        tmp_path / "out",
        settings,
        progress=lambda stage, *_: stages.append(stage),
    ).numbers
    assert stages.count("distil in floats") == 5
    assert stages.count("distil") == 3
    assert report["tokens_in_floats"] == 5 * one
    quantize(tmp_path / "floats", tmp_path / "plain", recipe=recipe)
    plain, learnt = open_artifact(tmp_path / "plain"), open_artifact(tmp_path / "out")
    assert plain.linears == learnt.linears
    assert report["held_out_before"]["kl"] == pytest.approx(floats["held_out_after"]["kl"], rel=0.1)
    assert report["held_out_after"]["kl"] < report["held_out_before"]["kl"]


def test_fixed_codes_are_those_of_quantize_and_take_back_what_rounding_costs(
    pair: Pair, recipe: str, tmp_path: Path
) -> None:
    """Its teacher is then itself in floats, so its KL is what rounding costs."""
    coarse = tmp_path / "recipe.yaml"
    coarse.write_text(Path(recipe).read_text().replace("bits_per_weight: 6.0", "bits_per_weight: 5.0"))
    settings = pair.settings(
        quantization_aware=str(coarse), fixed_codes=True, grid_learning_rate=2e-3, tokens=48 * 4 * 40
    )
    numbers = distil(pair.teacher, pair.student, tmp_path / "out", settings).numbers
    quantize(pair.student, tmp_path / "plain", recipe=coarse)
    plain, learnt = open_artifact(tmp_path / "plain"), open_artifact(tmp_path / "out")
    for name in plain.linears:
        one, other = plain.linear(name), learnt.linear(name)
        np.testing.assert_array_equal(one.codes, other.codes)
        ends = name in ("embed", "head")
        assert np.array_equal(one.scale, other.scale) == ends
    assert numbers["held_out_after"]["kl"] < 0.97 * numbers["held_out_before"]["kl"]
    assert any("stayed" in note for note in numbers["notes"])


def test_a_run_that_stopped_in_floats_goes_on_to_the_same_artifact(
    pair: Pair, recipe: str, tmp_path: Path
) -> None:
    settings = pair.settings(quantization_aware=recipe, float_tokens=48 * 4 * 5, fixed_codes=True)
    distil(pair.teacher, pair.student, tmp_path / "whole", settings)
    for stop in ("distil in floats", "distil"):

        def stopping(stage: str, done: int, total: int, stop: str = stop) -> None:
            if stage == stop and done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            distil(pair.teacher, pair.student, tmp_path / "out", settings, progress=stopping)
    distil(pair.teacher, pair.student, tmp_path / "out", settings)
    for stored, expected in zip(
        weights(open_artifact(tmp_path / "out")), weights(open_artifact(tmp_path / "whole")), strict=True
    ):
        np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize(("asked", "learnt"), [(191, 0), (10**9, 48 * 4)])
def test_tokens_in_floats_that_are_not_those_asked_for_are_noted(
    asked: int, learnt: int, pair: Pair, recipe: str, tmp_path: Path
) -> None:
    """Less than a step, and more than there are."""
    settings = pair.settings(quantization_aware=recipe, float_tokens=asked, tokens=48 * 4 * 2)
    numbers = distil(pair.teacher, pair.student, tmp_path / "out", settings).numbers
    assert numbers["tokens_in_floats"] == learnt
    assert f"In floats {learnt:,} tokens were learnt, not {asked:,}" in " ".join(numbers["notes"])


@pytest.mark.parametrize(
    "setting", [{"float_tokens": 4096}, {"fixed_codes": True}, {"grid_learning_rate": 1e-4}]
)
def test_settings_of_the_grid_need_the_grid(setting: dict[str, object], pair: Pair) -> None:
    with pytest.raises(UsageError, match="add quantization-aware"):
        pair.settings(**setting)
