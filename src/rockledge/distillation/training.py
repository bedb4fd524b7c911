"""One training run: its arguments for transformers' Trainer, and how it goes on where it was stopped."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from accelerate import PartialState
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments

from rockledge.distillation.checked_trainer import CheckedTrainer
from rockledge.distillation.resuming import drop_incomplete, last_checkpoint
from rockledge.distillation.settings import Settings
from rockledge.distillation.teacher import Teacher
from rockledge.distillation.trainer import DistillationTrainer
from rockledge.errors import RockledgeError, TrainingError, UsageError

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""

_LEAST_SAVES = 10  # of a run, where nobody says how often


@dataclass(frozen=True)
class Run:
    """`sequences` are learnt in their order, `settings.batch` a step; `held_out` may be empty. `place` keeps
    checkpoints. `stage` is its name for progress."""

    stage: str
    model: Any
    sequences: Dataset[dict[str, Any]]
    held_out: Dataset[dict[str, Any]] | None
    settings: Settings
    steps: int
    place: Path
    teacher: Teacher | None


def processes() -> int:
    """How many processes share this run: what torchrun or accelerate launch says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_everyone(settings: Settings, steps: int, place: Path) -> None:
    """Until all processes of the run have come here."""
    if processes() > 1:
        assert training_arguments(settings, steps, place).device  # which makes them know each other
        PartialState().wait_for_everyone()


def training_arguments(
    settings: Settings,
    steps: int,
    place: Path,
    kind: Callable[..., TrainingArguments] = TrainingArguments,
    **more: Any,
) -> TrainingArguments:
    """The Trainer's arguments as a record of that kind, with `more` of its own; UsageError where a batch
    cannot be shared evenly, or an argument is not one of the Trainer's."""
    share = settings.micro_batch * processes()
    if settings.batch % share:
        raise UsageError(
            f"a batch of {settings.batch} sequences cannot be shared by {processes()} processes with "
            f"micro-batches of {settings.micro_batch}; choose a multiple of {share}"
        )
    save = settings.save_every or max(1, min(500, -(-steps // _LEAST_SAVES)))
    given: dict[str, Any] = {
        "output_dir": str(place),
        "max_steps": steps,
        "per_device_train_batch_size": settings.micro_batch,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": settings.batch // share,
        "train_sampling_strategy": "sequential",
        "learning_rate": settings.rate,
        **_schedule(settings),
        "warmup_steps": settings.warmup(steps),
        "bf16": settings.bf16,
        "gradient_checkpointing": settings.checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "seed": settings.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": save,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        "eval_steps": settings.evaluate_every or save,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
    }
    if not torch.cuda.is_available():
        given |= {"use_cpu": True}
    try:
        return kind(**{**given, **more, **settings.trainer})
    except Exception as error:  # of every package that one of them needs
        raise _not_taken(error) from error


def _schedule(settings: Settings) -> dict[str, Any]:
    """The learning rate falls to the last one, unless --trainer names another schedule, which has other
    settings."""
    if "lr_scheduler_type" in settings.trainer:
        return {}
    return {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": settings.final_rate},
    }


def _not_taken(error: Exception) -> UsageError:
    reason = " ".join(str(error).split()).removeprefix("TrainingArguments.__init__() ")[:200]
    return UsageError(f"the Trainer does not take these arguments ({reason}); correct --trainer")


def train(run: Run, progress: Progress) -> DistillationTrainer:
    """Teaches by the sequences of `run`, as `train_with` does."""
    arguments = training_arguments(run.settings, run.steps, run.place)

    def made(**given: Any) -> DistillationTrainer:
        return DistillationTrainer(settings=run.settings, teacher=run.teacher, **given)

    return train_with(run, arguments, made, progress)


_AnyTrainer = TypeVar("_AnyTrainer", bound=CheckedTrainer)


def train_with(
    run: Run, arguments: TrainingArguments, made: Callable[..., _AnyTrainer], progress: Progress
) -> _AnyTrainer:
    """Trains from the last whole checkpoint in `run.place`, or from the start, to the end, by the trainer
    that `made` makes of the Trainer's own arguments. The model of the trainer that is returned has learnt;
    its `state.log_history` is the curve of all of the run.

    Raises:
        TrainingError: the loss is not finite, or the disk is full; checkpoints are kept.
    """
    if run.held_out is None:
        arguments.eval_strategy = transformers.trainer_utils.IntervalStrategy.NO
    with arguments.main_process_first(local=False):
        run.place.mkdir(parents=True, exist_ok=True)
        if arguments.process_index == 0:
            drop_incomplete(run.place)
    kept = last_checkpoint(run.place)
    arguments.eval_on_start = run.held_out is not None and kept is None
    begun = _Begun()
    try:
        trainer = made(
            model=run.model,
            args=arguments,
            train_dataset=run.sequences,
            eval_dataset=run.held_out,
            callbacks=[begun, _Report(run.stage, progress)],
        )
        if kept is None and arguments.process_index == 0:
            trainer.require_room()
        trainer.train(resume_from_checkpoint=None if kept is None else str(kept[1]))
    except RockledgeError:
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU has no room for micro-batches of {run.settings.micro_batch} sequences of "
            f"{run.settings.sequence} tokens; choose a smaller --micro-batch or --sequence, or add "
            "--checkpointing or --bf16"
        ) from error
    except Exception as error:  # of every package that one of the arguments needs
        if not begun.steps and run.settings.trainer and kept is None:
            raise _not_taken(error) from error
        if not begun.steps and kept is not None:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(
                f"the run cannot go on from {kept[1]} ({reason}); remove that directory and give the same "
                "command again, to go on from the checkpoint before it"
            ) from error
        raise
    return trainer


class _Begun(TrainerCallback):
    """How many steps this process has done: what fails before the first is likely an argument."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After an optimizer step."""
        self.steps += 1


class _Report(TrainerCallback):
    """Tells a progress function of every step."""

    def __init__(self, stage: str, progress: Progress) -> None:
        self._stage, self._progress = stage, progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After an optimizer step."""
        if state.is_world_process_zero:
            self._progress(self._stage, state.global_step, state.max_steps)
