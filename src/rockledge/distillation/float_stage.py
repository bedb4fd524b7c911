"""A run whose student becomes an artifact, in two stages: its first tokens are learnt in floats, the others
in the grid.

Learning in floats first is better than learning in the grid alone, and the fewer tokens there are for each
weight, the larger its best share is (Dremov et al., arXiv 2509.22935).
"""

import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from rockledge.artifact.publish import writing
from rockledge.distillation.fitting import vocabulary_size
from rockledge.distillation.lessons import Lessons
from rockledge.distillation.loading import load_model, round_to, save_model, stored_dtype
from rockledge.distillation.logit_cache import LogitCache
from rockledge.distillation.model_directory import small_files
from rockledge.distillation.resuming import FLOAT_CHECKPOINTS, FLOATS
from rockledge.distillation.sequence_order import OrderedSequences
from rockledge.distillation.settings import Settings
from rockledge.distillation.teacher import Teacher
from rockledge.distillation.training import Progress, Run, train

_LOOK_SECONDS = 0.5


def after_floats(
    run: Run, lessons: Lessons, cache: LogitCache | None, student: Path, place: Path, progress: Progress
) -> tuple[Run, Path]:
    """What is left of a `run` in the grid once its first tokens are learnt in floats, without a model, and
    the directory of the student as it is then; `place` keeps that. With `fixed_codes` the student in floats
    teaches from there on, and the data does not: what is left to learn is what rounding cost, which is
    little, and so is then the noise of its gradients.

    Raises:
        TrainingError: the loss is not finite, or the disk is full; checkpoints are kept.
    """
    settings = run.settings
    first = settings.float_steps(run.steps)
    border = first * settings.batch
    if first:
        sequences = OrderedSequences(lessons.train, lessons.order[:border], cache)
        floats = replace(run, stage="distil in floats", sequences=sequences, steps=first)
        student = _learnt_in_floats(student, floats, place, progress)
    order, own = lessons.order[border:], replace(settings, learning_rate=settings.grid_rate)
    left = replace(run, settings=own, steps=run.steps - first)
    if not settings.fixed_codes:
        return replace(left, sequences=OrderedSequences(lessons.train, order, cache)), student
    left = replace(
        left,
        settings=replace(own, data_weight=0.0),
        sequences=OrderedSequences(lessons.train, order),
        held_out=lessons.measured(None),
        teacher=_itself(student, settings),
    )
    return left, student


def _itself(student: Path, settings: Settings) -> Teacher:
    """The student as its own teacher."""
    vocabulary = vocabulary_size(small_files(student))
    model = load_model(student, torch.bfloat16 if settings.bf16 else torch.float32)
    model.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return Teacher(model, min(settings.top_k, vocabulary), vocabulary)


def _learnt_in_floats(student: Path, run: Run, place: Path, progress: Progress) -> Path:
    """The directory of the student that learnt `run`, where a stopped run goes on and a finished one is found
    again. The first of several processes writes it, and the others wait."""
    finished = place / FLOATS
    if finished.is_dir():
        return finished
    learning = replace(run, model=load_model(student, torch.float32), place=place / FLOAT_CHECKPOINTS)
    trainer = train(learning, progress)
    round_to(trainer.model, stored_dtype(student))
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if int(os.environ.get("RANK", "0")) == 0:
        partial = place / f"{FLOATS}.partial"
        partial.mkdir(exist_ok=True)
        with writing(finished):
            taught = trainer.accelerator.unwrap_model(trainer.model_wrapped)
            save_model(taught, state, student, partial, stored_dtype(student))
            os.replace(partial, finished)
    while not finished.is_dir():
        time.sleep(_LOOK_SECONDS)
    return finished
