"""The whole way: data and models are checked, the teacher is adapted and its logits kept where asked for, the
student learns, is measured, and appears with its report under its name whole or not at all."""

import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rockledge.artifact.provenance import peak_memory
from rockledge.artifact.publish import publish_directory, write_file, writing
from rockledge.distillation.adapting import adapter_described, adapter_place
from rockledge.distillation.fitting import check_tokens
from rockledge.distillation.float_stage import after_floats
from rockledge.distillation.hidden_states import (
    PROJECTIONS,
    add_projections,
    drop_projections,
    paired_layers,
)
from rockledge.distillation.in_grid import student_in_grid, with_sizes, write_artifact_of
from rockledge.distillation.lessons import lessons_of
from rockledge.distillation.loading import (
    load_model,
    round_to,
    save_model,
    stored_dtype,
    with_lora,
    with_merged,
)
from rockledge.distillation.model_directory import end_of_text
from rockledge.distillation.on_policy import learn_on_policy
from rockledge.distillation.question_answer.synthesize import Synthesized
from rockledge.distillation.quiet import quiet_libraries
from rockledge.distillation.report import Report, curve_picture, report_text
from rockledge.distillation.request import check_student_place, checked_request
from rockledge.distillation.resuming import (
    CHECKPOINTS,
    GRID,
    STUDENT_ADAPTER,
    claimed,
    files_stated,
)
from rockledge.distillation.sequence_order import OrderedSequences
from rockledge.distillation.settings import Settings
from rockledge.distillation.teacher_side import TeacherSide
from rockledge.distillation.trainer import DistillationTrainer
from rockledge.distillation.training import Progress, Run, processes, train, wait_for_everyone
from rockledge.distillation.training_text import TrainingText, training_text
from rockledge.model.source import source_hub_id

CURVE = "loss.png"


def distil(
    teacher: str | Path,
    student: str | Path,
    out: str | Path,
    settings: Settings,
    *,
    work: str | Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress = lambda stage, done, total: None,
    synthesized: Synthesized | None = None,
) -> Report:
    """Teaches a copy of `student` what `teacher` knows of the data, and writes it to `out` as an ordinary
    Hugging Face checkpoint with report.json, report.md and loss.png; with `settings.quantization_aware` as
    an artifact, whose codes are those that learnt. What is `synthesized` is learnt too, and its held-out
    part is what is measured.

    A stopped run continues when it is called again with the same arguments: its checkpoints are in `work`
    (default: hidden beside `out`, removed at the end). With several processes all of them call this, and the
    first writes.

    Raises:
        UsageError: settings, data or models do not go together.
        CheckpointError: a model cannot be loaded.
        TrainingError: the loss is not finite, or the disk is full.
    """
    with quiet_libraries(), ExitStack() as claims:
        return _distil(
            teacher,
            student,
            Path(os.path.realpath(out)),
            settings,
            work,
            overwrite,
            command,
            progress,
            synthesized,
            claims,
        )


def _distil(
    teacher: str | Path,
    student: str | Path,
    target: Path,
    settings: Settings,
    work: str | Path | None,
    overwrite: bool,
    command: str | None,
    progress: Progress,
    synthesized: Synthesized | None,
    claims: ExitStack,
) -> Report:
    started = time.monotonic()
    request = checked_request(teacher, student, target, settings, work, overwrite)
    learning, teaching, recipe = request.student, request.teacher, request.recipe
    place, files, taught_by, length = request.place, request.files, request.taught_by, request.length
    text = training_text(
        files,
        end_of_text(files),
        settings.data if synthesized is None else [*settings.data, synthesized.train],
        held_out_file=settings.held_out or (None if synthesized is None else synthesized.held_out),
        share=settings.held_out_share if synthesized is None else 0.0,
        length=length,
        answer=settings.answer if settings.on_policy else 0,
        left_out=frozenset() if synthesized is None else synthesized.held_out_documents,
        must_measure=synthesized is None,
    )
    for role, described in (("student", files), ("teacher", taught_by)):
        if described is not None:
            check_tokens(described, role, text)
    steps = settings.steps(len(text.train))
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        in_grid = None if recipe is None else recipe.text()
        described = _described(settings, text, teaching, learning, in_grid)
        claims.enter_context(claimed(place, described))
    lessons = lessons_of(text, steps * settings.batch, settings.seed)
    notes = [] if synthesized is None else [synthesized.sentence, *synthesized.numbers["notes"]]
    notes += text.notes
    cache, asked, side = None, None, None
    if teaching is not None:
        adapter = place
        if settings.adapt_teacher and settings.cache_logits is not None:
            made = adapter_described(teaching, settings, lessons, steps)
            adapter = adapter_place(Path(settings.cache_logits), made)
            if first:
                claims.enter_context(claimed(adapter, made))
        side = TeacherSide(teaching, files, settings, lessons, steps, adapter, notes, progress)
        if settings.learns_from_teacher:
            cache, asked = side.ready()
    run = Run(
        "distil",
        None,
        OrderedSequences(lessons.train, lessons.order, cache),
        lessons.measured(cache),
        settings,
        steps,
        place / CHECKPOINTS,
        asked,
    )
    if recipe is None:
        model = load_model(learning, torch.float32)
    else:
        wait_for_everyone(settings, steps, place / CHECKPOINTS)  # what another run left is gone
        run, begins = after_floats(run, lessons, cache, learning, place, progress)
        step = settings.batch * settings.sequence
        in_floats = settings.float_steps(steps) * step
        if settings.float_tokens - in_floats >= step or (settings.float_tokens and not in_floats):
            notes.append(
                f"In floats {in_floats:,} tokens were learnt, not {settings.float_tokens:,}: there are "
                f"{steps} steps of {step:,}, and the last is in the grid."
            )
        if settings.fixed_codes:
            notes.append("Codes stayed; row scales and biases learnt from the student as it was in floats.")
        model = student_in_grid(begins, recipe, place / GRID, progress, fixed_codes=settings.fixed_codes)
    if asked is not None and settings.hidden_weight:
        other = asked.model.config
        pairs = len(paired_layers(model.config.num_hidden_layers, other.num_hidden_layers))
        add_projections(model, (model.config.hidden_size, other.hidden_size), pairs, settings.seed)
    if settings.lora:
        model = with_lora(model, settings.lora, settings.seed)
    run = replace(run, model=model)
    began = time.monotonic()
    trainer = train(run, progress)
    on_policy = None
    if side is not None and text.prompts is not None:
        asked = side.online() if asked is None else asked
        on_policy = learn_on_policy(trainer, asked.model, text.prompts, learning, settings, place, progress)
    seconds = time.monotonic() - began
    if settings.lora:
        _merge(trainer, learning, place / STUDENT_ADAPTER)
    if recipe is None:
        round_to(trainer.model, stored_dtype(learning))
    final = trainer.evaluate() if run.held_out is not None else {}
    report = _report(settings, text, notes, trainer, final, steps, seconds, teaching, learning)
    if on_policy is not None:
        report = Report({**report.numbers, "on_policy": on_policy})
    if recipe is not None:
        report = with_sizes(report, model)
        if first:
            write_artifact_of(
                target,
                model,
                report,
                recipe,
                command=command,
                started=started,
                overwrite=overwrite,
                progress=progress,
            )
    else:
        _write_student(target, trainer, learning, report, command, started, overwrite)
    if work is None and first:
        shutil.rmtree(place, ignore_errors=True)
    return report


def _write_student(
    target: Path,
    trainer: DistillationTrainer,
    student: Path,
    report: Report,
    command: str | None,
    started: float,
    overwrite: bool,
) -> None:
    """Writes an ordinary checkpoint; all processes call this, and the first writes."""
    state, dtype = trainer.accelerator.get_state_dict(trainer.model_wrapped), stored_dtype(student)
    if int(os.environ.get("RANK", "0")):
        return
    with (
        publish_directory(target, lambda there: check_student_place(there, overwrite)) as partial,
        writing(target),
    ):
        taught = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        drop_projections(taught)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(PROJECTIONS)}
        save_model(taught, state, student, partial, dtype)
        made = {"command": command, "seconds": time.monotonic() - started, "peak_memory": peak_memory()}
        write_file(partial / "report.json", report.json())
        text = report_text(report.numbers, made).encode(errors="replace")  # names may be no text
        write_file(partial / "report.md", text)
        if (picture := curve_picture(report.numbers)) is not None:
            write_file(partial / CURVE, picture)


def _merge(trainer: DistillationTrainer, student: Path, adapter: Path) -> None:
    """Puts the student with the trained adapter in its weights in the place of the trainer's model."""
    trainer.save_model(str(adapter))
    trainer.accelerator.wait_for_everyone()
    trainer.model = trainer.model_wrapped = with_merged(student, adapter).to(trainer.args.device)


# What a run may change between being stopped and going on.
_FREE = ("cache_logits", "cache_bytes", "micro_batch", "checkpointing", "save_every")


def _described(
    settings: Settings, text: TrainingText, teacher: Path | None, student: Path, recipe: str | None
) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(settings).items() if name not in _FREE and name != "data"}
    return {
        **kept,
        "data": text.sha256,
        "held_out": None,
        "teacher": None if teacher is None else files_stated(teacher),
        "student": files_stated(student),
        "quantization_aware": recipe,
    }


def _report(
    settings: Settings,
    text: TrainingText,
    notes: list[str],
    trainer: DistillationTrainer,
    final: dict[str, float],
    steps: int,
    seconds: float,
    teacher: Path | None,
    student: Path,
) -> Report:
    history = trainer.state.log_history
    before = next((entry for entry in history if "eval_loss" in entry and entry["step"] == 0), {})
    return Report(
        {
            "teacher": None if teacher is None else source_hub_id(teacher) or teacher.name,
            "student": source_hub_id(student) or student.name,
            "settings": asdict(replace(settings, cache_logits=None)),
            "notes": notes,
            "steps": steps,
            "tokens": steps * settings.batch * settings.sequence,
            "tokens_in_floats": settings.float_steps(steps) * settings.batch * settings.sequence,
            "learnt_tokens_of_one_pass": text.train.learnt,
            "held_out_tokens": text.held_out.learnt,
            "processes": processes(),
            "held_out_before": _held_out(before),
            "held_out_after": _held_out(final),
            "curve": [
                {
                    key: entry[key]
                    for key in ("step", "loss", "kl", "data_loss", "hidden", "learning_rate")
                    if key in entry
                }
                for entry in history
                if "loss" in entry
            ],
            "held_out_curve": [
                {"step": entry["step"], **_held_out(entry)} for entry in history if "eval_loss" in entry
            ],
            "seconds_of_training": round(seconds, 1),
        }
    )


def _held_out(entry: dict[str, Any]) -> dict[str, float]:
    return {key.removeprefix("eval_"): value for key, value in entry.items() if key.startswith("eval_")}
