"""A student that learns as the artifact it will be: where it begins, and how it is written."""

import os
import time
from pathlib import Path
from typing import Any

import torch

from rockledge.artifact.parts import heading, parts_table, size_numbers
from rockledge.artifact.provenance import Provenance, peak_memory
from rockledge.distillation.report import Report, held_out_lines
from rockledge.distillation.settings import Settings
from rockledge.distillation.training import Progress, processes
from rockledge.errors import UsageError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.model.source_digest import source_digest
from rockledge.quantization.choosing.recipe import Recipe
from rockledge.quantization.learning.model import LearningModel
from rockledge.quantization.learning.start import asked_recipe, is_made, make_start, start_of
from rockledge.quantization.learning.written import write_learnt

_LOOK_SECONDS = 0.5


def recipe_of(settings: Settings, student: Path) -> Recipe | None:
    """What `quantization_aware` asks for, None where it does not; UsageError where it cannot be done."""
    if settings.quantization_aware is None:
        return None
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true"):
        raise UsageError(
            "quantization-aware training needs all weights of a linear on every device, which FSDP divides; "
            "start it with torchrun instead"
        )
    return asked_recipe(settings.quantization_aware, open_checkpoint(student))


def student_in_grid(
    student: Path, recipe: Recipe, place: Path, progress: Progress, *, fixed_codes: bool
) -> LearningModel:
    """The `student` as `recipe` quantizes it, to be trained; `place` keeps what that takes. Of several
    processes the first quantizes, and the others wait as long as it takes: a barrier would give up."""
    checkpoint = open_checkpoint(student)
    if processes() == 1 or int(os.environ["RANK"]) == 0:
        make_start(checkpoint, recipe, place, "cuda" if torch.cuda.is_available() else "cpu", progress)
    while not is_made(place):
        time.sleep(_LOOK_SECONDS)
    return start_of(checkpoint, place, fixed_codes=fixed_codes)


def with_sizes(report: Report, model: LearningModel) -> Report:
    """The report of the training with what the report of an artifact says."""
    checkpoint = model.source
    return Report(
        {
            "model": report.numbers["student"],
            "stored": checkpoint.stored,
            **report.numbers,
            "notes": [*checkpoint.notes, *report.numbers["notes"]],
            **size_numbers(model.plan),
            "source_sha256": source_digest(checkpoint),
        }
    )


def write_artifact_of(
    target: Path,
    model: LearningModel,
    report: Report,
    recipe: Recipe,
    *,
    command: str | None,
    started: float,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Writes the artifact with its codes as they are now. `started` is a time of `time.monotonic`."""
    made = Provenance(
        command=command,
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_memory(),
        calibration=recipe.calibration,
        tokens=recipe.tokens,
        seed=report.numbers["settings"]["seed"],
        steps={
            "training": "quantization-aware",
            "codes": "fixed" if report.numbers["settings"]["fixed_codes"] else "learnt",
        },
    )
    text = _text(report.numbers, made)
    write_learnt(target, model, report.numbers, text, overwrite, lambda d, n: progress("write", d, n))


def _text(numbers: dict[str, Any], made: Provenance) -> str:
    teacher, before = numbers["teacher"] or "the data alone", numbers["tokens_in_floats"]
    first = f", the first {before:,} of them in floats" if before else ""
    taught = (
        f"Trained as it is stored, by {teacher}: {numbers['steps']} steps, {numbers['tokens']:,} "
        f"tokens{first}; losses are in nats a token. Before means as quantize made it."
    )
    lines = [*heading(numbers), "", taught, "", *held_out_lines(numbers), "", *parts_table(numbers), ""]
    return "\n".join([*lines, *made.lines()]) + "\n"
