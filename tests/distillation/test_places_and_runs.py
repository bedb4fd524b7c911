"""What a distillation refuses before it trains: places in each other, two runs at once, models without room
for the text; and what it says of a checkpoint that cannot be read."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from tests.distillation.pair import Pair
from transformers import AutoModelForCausalLM

from rockledge.distillation.distil import distil
from rockledge.distillation.fitting import check_tokens
from rockledge.distillation.loading import save_model
from rockledge.distillation.resuming import claimed
from rockledge.distillation.training_text import training_text
from rockledge.errors import RockledgeError, TrainingError, UsageError


def refused(pair: Pair, out: Path, said: str, **given: Any) -> None:
    """Asserts that it is refused before anything is trained, and leaves nothing at `out`."""
    values = {"teacher": pair.teacher, "student": pair.student, **given.pop("models", {})}

    def progress(stage: str, done: int, total: int) -> None:
        raise AssertionError(f"{stage} has begun")

    before = out.exists()
    with pytest.raises(RockledgeError, match=said):
        distil(
            values["teacher"],
            values["student"],
            out,
            pair.settings(**given.pop("settings", {})),
            progress=progress,
            **given,
        )
    assert out.exists() == before


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"work": "out/work"}, "--work .* is in the output"),
        ({"work": "out"}, "--work .* is in the output"),
        ({"settings": {"cache_logits": "out/cache"}}, "--cache-logits .* is in the output"),
        (
            {"work": "w", "settings": {"cache_logits": "w/cache"}},
            "--cache-logits .* is in the work directory",
        ),
        ({"settings": {"cache_logits": ".out.distil/cache"}}, "--cache-logits .* is in the work directory"),
    ],
)
def test_places_in_each_other_are_refused_at_the_start(
    inner: dict[str, Any], said: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(pair, Path("out"), said, **inner)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_what_is_learnt_from_is_not_replaced(role: str, pair: Pair, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(pair.student, out)
    (out / "report.json").write_text("{}")
    shutil.copytree(pair.teacher, out / "inner")
    models = {role: out / "inner" if role == "teacher" else out}
    refused(pair, out, f"the {role} .* is in the output", models=models, overwrite=True)
    assert (out / "inner" / "model.safetensors").is_file()


def test_a_teacher_that_cannot_read_a_sequence_is_refused(pair: Pair, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(pair.teacher, short)
    described = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**described, "max_position_embeddings": 32}))
    refused(pair, tmp_path / "out", "longer than the teacher's context of 32", models={"teacher": short})


def test_a_token_without_an_embedding_is_refused(pair: Pair) -> None:
    names = ("config.json", "tokenizer.json", "tokenizer_config.json")
    files = {name: (pair.teacher / name).read_bytes() for name in names}
    text = training_text(files, None, [pair.data], held_out_file=None, share=0.1, length=48)
    most = int(max(text.train.ids.max(), text.held_out.ids.max()))
    for size, fits in ((most + 1, True), (most, False)):
        described = {"text_config": {"vocab_size": size}}
        asked = {**files, "config.json": json.dumps(described).encode()}
        if fits:
            check_tokens(asked, "teacher", text)
        else:
            with pytest.raises(UsageError, match=f"the data has token {most}.* but the teacher"):
                check_tokens(asked, "teacher", text)


def test_one_run_at_a_time_works_in_a_place(tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "w", {"seed": 0}),
        pytest.raises(UsageError, match="another run is working"),
        claimed(tmp_path / "w", {"seed": 0}),
    ):
        pass
    with claimed(tmp_path / "w", {"seed": 0}):  # and it is free again
        pass


@pytest.mark.parametrize("content", [b"[]", b"5", b"\xff", b"[" * 100_000])
def test_a_damaged_note_of_a_run_is_written_again(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with claimed(tmp_path, {"seed": 0}):
        assert json.loads((tmp_path / "run.json").read_bytes()) == {"seed": 0}


class _Free:
    """Of a disk, as `shutil.disk_usage` has it."""

    def __init__(self, free: int) -> None:
        self.free = free


def test_no_room_for_the_output_is_said_at_the_start(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: _Free(1000))
    refused(pair, tmp_path / "out", "the student takes .* but 1.0 kB are free")


def test_a_full_disk_while_the_output_is_written_is_said(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    model = AutoModelForCausalLM.from_pretrained(pair.student)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, model.state_dict(), pair.student, tmp_path, torch.float32)


def test_where_room_is_short_one_checkpoint_is_kept_beside_the_new_one(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start asks for the room of two, so a third may not be needed."""
    real, most = shutil.disk_usage, 0

    def counted(place: Path) -> _Free:
        nonlocal most
        there = [one for one in Path(place).glob("checkpoint-*") if (one / "complete.json").is_file()]
        most = max(most, len(there))
        return _Free(0 if len(there) > 1 else real(place).free)

    monkeypatch.setattr("rockledge.distillation.checked_trainer.shutil.disk_usage", counted)
    settings = pair.settings(save_every=2)
    report = distil(pair.teacher, pair.student, tmp_path / "out", settings)
    assert report.numbers["steps"] == 8
    assert most == 2


def test_a_checkpoint_that_cannot_be_read_is_named(pair: Pair, tmp_path: Path) -> None:
    work = tmp_path / "work"
    distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(), work=work)
    damaged = work / "checkpoints" / "checkpoint-8" / "trainer_state.json"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(TrainingError, match=r"cannot go on from .*checkpoint-8 .* remove that directory"):
        distil(pair.teacher, pair.student, tmp_path / "again", pair.settings(), work=work)
    shutil.rmtree(damaged.parent)
    again = distil(pair.teacher, pair.student, tmp_path / "again", pair.settings(), work=work)
    assert again.numbers["steps"] == 8


@pytest.mark.parametrize(
    "given",
    [{"adam_beta1": 2}, {"weight_decay": "x"}, {"lr_scheduler_kwargs": {"a": 1}}, {"fsdp": "full_shard"}],
)
def test_an_argument_that_the_trainer_cannot_use_is_said(
    given: dict[str, Any], pair: Pair, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"the Trainer does not take these arguments .* correct --trainer"):
        distil(pair.teacher, pair.student, tmp_path / "out", pair.settings(trainer=given))


def test_another_schedule_has_no_least_rate(pair: Pair, tmp_path: Path) -> None:
    report = distil(
        pair.teacher,
        pair.student,
        tmp_path / "out",
        pair.settings(trainer={"lr_scheduler_type": "constant"}, warmup_steps=0),
    )
    assert {step["learning_rate"] for step in report.numbers["curve"]} == {8e-3}


def test_names_that_are_no_text_cost_no_student(pair: Pair, tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"d\xff.jsonl")
    shutil.copyfile(pair.data, data)
    settings = pair.settings(data=[str(data)], tokens=1, held_out_share=0.0)
    out = tmp_path / os.fsdecode(b"o\xfe")
    distil(pair.teacher, pair.student, out, settings, command=f"rockledge distill --data {data}")
    assert "Made by `rockledge distill" in (out / "report.md").read_text(encoding="utf-8")
