"""The whole way on small models: what is learnt, what is written, and how a stopped run goes on."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distillation.pair import Pair, made_model

from rockledge.cli.main import main
from rockledge.distillation.distil import distil
from rockledge.distillation.loading import load_model
from rockledge.distillation.report import Report
from rockledge.distillation.settings import Settings
from rockledge.errors import ArtifactError, RockledgeError, TrainingError, UsageError
from rockledge.model.checkpoint import open_checkpoint

CURVE = ("step", "loss", "kl", "data_loss", "learning_rate")


def curve(report: Report) -> list[list[float]]:
    """Step, losses and learning rate of every step."""
    return [[entry[name] for name in CURVE if name in entry] for entry in report.numbers["curve"]]


def assert_same_curve(report: Report, other: Report) -> None:
    """All losses are the same but for the order of sums."""
    np.testing.assert_allclose(curve(report), curve(other), rtol=0, atol=1e-5)
    assert report.numbers["held_out_after"] == pytest.approx(other.numbers["held_out_after"], abs=1e-5)


def stopped_at(step: int, error: Exception | type[BaseException] = KeyboardInterrupt) -> Callable[..., None]:
    """A progress function that ends the run after so many steps."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "distil" and done == step:
            raise error

    return progress


@pytest.fixture(scope="module")
def whole(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A run that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "student"
    return distil(pair.teacher, pair.student, out, pair.settings(), command="rockledge distill ..."), out


def test_the_student_comes_closer_to_its_teacher(whole: tuple[Report, Path]) -> None:
    report, _ = whole
    before, after = report.numbers["held_out_before"], report.numbers["held_out_after"]
    assert after["kl"] < 0.9 * before["kl"]
    assert [entry[0] for entry in curve(report)] == list(range(1, 9))
    assert report.numbers["tokens"] == 8 * 4 * 48


def test_what_is_written_is_an_ordinary_checkpoint(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers loads it, its held-out loss is the reported one, and quantize takes it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    report, out = whole
    assert not list(out.parent.glob(".*"))
    assert {"report.json", "report.md", "loss.png", "tokenizer.json", "chat_template.jinja"} <= set(
        os.listdir(out)
    )
    assert json.loads((out / "report.json").read_text()) == report.numbers
    model, about = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not about["missing_keys"]
    assert not about["unexpected_keys"]
    assert model.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(out)("fox").input_ids
    trained = open_checkpoint(out)
    assert not np.array_equal(trained.tensor("embed"), open_checkpoint(pair.student).tensor("embed"))
    assert main(["quantize", str(out), "-o", str(tmp_path / "artifact"), "--instant"]) == 0
    capsys.readouterr()


def test_a_tied_student_of_two_bytes_is_stored_as_one(pair: Pair, tmp_path: Path) -> None:
    student = shutil.copytree(pair.student, tmp_path / "student")
    halves = {name: x.to(torch.bfloat16) for name, x in load_file(student / "model.safetensors").items()}
    save_file(halves, student / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    distil(pair.teacher, student, out, pair.settings(tokens=1, held_out_share=0.0))
    written = load_file(out / "model.safetensors")
    assert written.keys() == halves.keys()
    assert {x.dtype for x in written.values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_logits": "cache"},
        {"micro_batch": 1},
        {"micro_batch": 4, "checkpointing": True},
    ],
    ids=["cached", "accumulated", "checkpointed"],
)
def test_ways_to_compute_it_give_the_same_curve(
    settings: dict[str, Any], whole: tuple[Report, Path], pair: Pair, tmp_path: Path
) -> None:
    if "cache_logits" in settings:
        settings = {"cache_logits": str(tmp_path / "cache")}
    report = distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(**settings))
    assert_same_curve(report, whole[0])


def test_a_stopped_run_goes_on_to_the_same_curve(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path
) -> None:
    """Stopped twice: after a checkpoint, and with one that was only half written."""
    out, work = tmp_path / "out", tmp_path / ".out.distil"
    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, out, pair.settings(), progress=stopped_at(4))
    assert not out.exists()
    assert sorted(place.name for place in (work / "checkpoints").iterdir()) == ["checkpoint-3"]
    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, out, pair.settings(), progress=stopped_at(7))
    last = work / "checkpoints" / "checkpoint-6"
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    steps = []
    report = distil(
        pair.teacher,
        pair.student,
        out,
        pair.settings(),
        progress=lambda stage, done, total: steps.append(done),
    )
    assert steps == list(range(4, 9))
    assert_same_curve(report, whole[0])
    assert not work.exists()


def test_a_run_stopped_after_its_last_step_only_writes(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("rockledge.distillation.distil.save_model", full)
        with pytest.raises(ArtifactError, match="no space is left"):
            distil(pair.teacher, pair.student, tmp_path / "out", pair.settings())
    assert not (tmp_path / "out").exists()
    steps: list[int] = []
    report = distil(
        pair.teacher,
        pair.student,
        tmp_path / "out",
        pair.settings(),
        progress=lambda stage, done, total: steps.append(done),
    )
    assert steps == []
    assert_same_curve(report, whole[0])


def test_a_full_disk_keeps_the_checkpoint_before(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, save = tmp_path / "out", torch.save

    def full(value: Any, place: Any, *arguments: Any, **named: Any) -> None:
        if "checkpoint-6" in str(place):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . No space left on device")
        save(value, place, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(
            TrainingError, match=r"no room for the checkpoint of step 6.*step 3 is kept.*free some"
        ):
            distil(pair.teacher, pair.student, out, pair.settings())
    report = distil(pair.teacher, pair.student, out, pair.settings())
    assert_same_curve(report, whole[0])


def test_an_unfinished_run_is_not_taken_for_another(pair: Pair, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        distil(
            pair.teacher,
            pair.student,
            tmp_path / "out",
            pair.settings(top_k=2),
            work=work,
            progress=stopped_at(1),
        )
    # Nothing is kept of that one, so the place is free.
    with pytest.raises(KeyboardInterrupt):
        distil(
            pair.teacher, pair.student, tmp_path / "out", pair.settings(), work=work, progress=stopped_at(4)
        )
    with pytest.raises(UsageError, match=r"another learning_rate, top_k; give the same command"):
        distil(
            pair.teacher,
            pair.student,
            tmp_path / "out",
            pair.settings(learning_rate=1e-3, top_k=3),
            work=work,
        )
    other = tmp_path / "letters"
    (other / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds something else"):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(), work=other)
    assert (other / "checkpoints" / "checkpoint-3").is_dir()


def test_a_loss_that_is_not_finite_stops_and_says_where(pair: Pair, tmp_path: Path) -> None:
    """A teacher whose weights are broken for one letter, which one document holds."""
    teacher = tmp_path / "teacher"
    made_model(teacher, hidden=48, layers=2, seed=0, tied=False)
    weights = load_file(teacher / "model.safetensors")
    broken = json.loads((teacher / "tokenizer.json").read_text())["model"]["vocab"]["Z"]
    weights["model.embed_tokens.weight"][broken] = torch.nan
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    lines = pair.data.read_text().split("\n")
    (tmp_path / "held.jsonl").write_text("\n".join(lines[:3]))
    (tmp_path / "data.jsonl").write_text("\n".join([*lines[3:10], json.dumps({"text": "Z" * 60})]))
    settings = pair.settings(
        data=[str(tmp_path / "data.jsonl")], held_out=str(tmp_path / "held.jsonl"), save_every=1
    )
    with pytest.raises(TrainingError, match="loss is not finite in step") as caught:
        distil(teacher, pair.student, tmp_path / "out", settings, work=tmp_path / "work")
    said = str(caught.value)
    step = int(said.split("in step ")[1].split()[0])
    kept = sorted((tmp_path / "work" / "checkpoints").iterdir())
    assert step > 1
    assert (
        f"the checkpoint of step {step - 1} is kept in {kept[-1]}" in said or f"checkpoint-{step - 1}" in said
    )
    assert "(sequences " in said
    assert not (tmp_path / "out").exists()
    for name, tensor in load_file(
        tmp_path / "work" / "checkpoints" / f"checkpoint-{step - 1}" / "model.safetensors"
    ).items():
        assert bool(torch.isfinite(tensor).all()), name


def test_lora_is_merged_and_the_teacher_is_adapted(pair: Pair, tmp_path: Path) -> None:
    settings = pair.settings(
        lora=4, adapt_teacher=True, adapt_rank=4, adapt_learning_rate=2e-2, learning_rate=2e-2
    )
    out = tmp_path / "out"

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "distil" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, out, settings, progress=progress)
    stages = []
    report = distil(pair.teacher, pair.student, out, settings, progress=lambda s, d, t: stages.append(s))
    assert set(stages) == {"distil"}  # the adapter was finished
    assert "adapted to the data first: LoRA of rank 4" in report.numbers["notes"][0]
    assert report.numbers["held_out_after"]["kl"] < report.numbers["held_out_before"]["kl"]
    assert open_checkpoint(out).names() == open_checkpoint(pair.student).names()


def test_runs_that_share_cached_logits_share_the_adapted_teacher(pair: Pair, tmp_path: Path) -> None:
    cache = tmp_path / "logits"
    settings = pair.settings(
        adapt_teacher=True, adapt_rank=4, adapt_learning_rate=2e-2, cache_logits=str(cache)
    )
    stages: list[list[str]] = [[], [], []]

    def runs(number: int, name: str, chosen: Settings) -> Report:
        return distil(
            pair.teacher,
            pair.student,
            tmp_path / name,
            chosen,
            progress=lambda stage, done, total: stages[number].append(stage),
        )

    first = runs(0, "first", settings)
    second = runs(1, "second", replace(settings, learning_rate=1e-4))
    other = runs(2, "other", replace(settings, adapt_learning_rate=1e-2))
    assert "adapt teacher" in stages[0]
    assert set(stages[1]) == {"distil"}  # neither adapted nor asked again
    assert "adapt teacher" in stages[2]
    assert first.numbers["held_out_before"] == second.numbers["held_out_before"]
    assert first.numbers["held_out_before"]["kl"] != other.numbers["held_out_before"]["kl"]


def test_hidden_states_are_learnt_through_matrices_that_are_thrown_away(pair: Pair, tmp_path: Path) -> None:
    settings = pair.settings(hidden_weight=1.0)
    with pytest.raises(KeyboardInterrupt):
        distil(pair.teacher, pair.student, tmp_path / "out", settings, progress=stopped_at(5))
    report = distil(pair.teacher, pair.student, tmp_path / "out", settings)
    assert report.numbers["held_out_after"]["hidden"] < report.numbers["held_out_before"]["hidden"]
    assert open_checkpoint(tmp_path / "out").names() == open_checkpoint(pair.student).names()
    assert "hidden_projections" not in str(load_file(tmp_path / "out" / "model.safetensors").keys())


def test_the_data_alone_teaches_without_a_teacher(pair: Pair, tmp_path: Path) -> None:
    settings = pair.settings(data_weight=1.0)
    report = distil(tmp_path / "teacher", pair.student, tmp_path / "out", settings)
    assert "kl" not in report.numbers["held_out_after"]
    assert report.numbers["held_out_after"]["loss"] < report.numbers["held_out_before"]["loss"]


def other_tokenizer(pair: Pair, place: Path) -> Path:
    made_model(place, hidden=48, layers=2, seed=0)
    content = json.loads((place / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (place / "tokenizer.json").write_text(json.dumps(content))
    return place


def artifact(pair: Pair, place: Path) -> Path:
    assert main(["quantize", str(pair.teacher), "-o", str(place), "--instant", "--quiet"]) == 0
    return place


def gguf(pair: Pair, place: Path) -> Path:
    place = place.with_suffix(".gguf")
    place.write_bytes(b"GGUF\3\0\0\0")
    return place


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (other_tokenizer, "different tokenizers.*--data-weight 1"),
        (artifact, "is an artifact, whose weights are rounded; give the Hugging Face checkpoint"),
        (gguf, "is a GGUF file, which transformers cannot train; give the model's"),
    ],
)
def test_a_teacher_that_cannot_be_one_is_said(
    teacher: Callable[[Pair, Path], Path], said: str, pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        distil(teacher(pair, tmp_path / "teacher"), pair.student, tmp_path / "out", pair.settings())


def test_weights_of_a_teacher_that_have_no_place_are_said(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = shutil.copytree(pair.teacher, tmp_path / "teacher")
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    load_model(teacher, torch.float32)
    assert "leaves out 9 tensors of teacher" in caplog.text
    assert "model.layers.1." in caplog.text


def test_data_shorter_than_a_sequence_is_said(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("only a few words")
    with pytest.raises(UsageError, match="the data makes 17 tokens to learn from, but one sequence has 48"):
        distil(
            pair.teacher,
            pair.student,
            tmp_path / "out",
            pair.settings(data=[str(tmp_path / "short.txt")], held_out_share=0.0),
        )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sequence": 1024}, "longer than the student's context of 512"),
        ({"trainer": {"lr": 3}}, "the Trainer does not take these arguments"),
        ({"batch": 3, "micro_batch": 2}, "cannot be cut into micro-batches"),
        ({"trainer": {"max_steps": 3}}, "max_steps of the Trainer is set by --tokens"),
        ({"hidden_weight": 1.0, "cache_logits": "x"}, "leave one of them out"),
        ({"trainer": {"max_grad_norm": float("nan")}}, "a value that JSON cannot hold"),
        ({"trainer": {"max_grad_norm": {1, 2}}}, "a value that JSON cannot hold"),
        ({"learning_rate": 1e-5, "final_learning_rate": 1e-4}, "the learning rate falls"),
        (
            {"quantization_aware": "4", "grid_learning_rate": 1e-5, "final_learning_rate": 5e-5},
            "the learning rate falls, but final-learning-rate is 5e-05 and the highest is 1e-05",
        ),
        ({"tokens": 10**30}, r"from 1 to 2\^62"),
    ],
)
def test_settings_that_make_no_sense_are_said(
    values: dict[str, Any], said: str, pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(RockledgeError, match=said):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(**values))


def test_an_output_is_not_replaced_without_a_word(
    whole: tuple[Report, Path], pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="add --overwrite"):
        distil(pair.teacher, pair.student, whole[1], pair.settings())
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="is not a distilled student"):
        distil(pair.teacher, pair.student, tmp_path / "letters", pair.settings(), overwrite=True)
