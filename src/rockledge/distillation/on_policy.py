"""`--on-policy`: a last stage in which the student writes and the teacher scores, so that the student learns
where its own words lead it.

In the first stage it reads the data and never what it would write itself, so one wrong word takes it where
nobody has taught it anything. Reverse KL holds it to what the teacher finds likely, where forward KL asks for
all that the teacher can say too, for which a small student has no room (MiniLLM, arXiv 2306.08543; GKD, arXiv
2306.13649).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from sys import version_info
from typing import Any

import torch
import transformers

from rockledge.distillation.fitting import vocabulary_size
from rockledge.distillation.prompts import Prompts
from rockledge.distillation.resuming import CHECKPOINTS, ON_POLICY, drop_older, last_checkpoint
from rockledge.distillation.sequence_order import sequence_order
from rockledge.distillation.settings import Settings
from rockledge.distillation.trainer import DistillationTrainer
from rockledge.distillation.training import Progress, Run, processes, train_with, training_arguments
from rockledge.errors import CheckpointError, RockledgeError, UsageError
from rockledge.model.checkpoint import open_checkpoint
from rockledge.pip_command import pip_install

TRL = "1.16.0"
"""The only version that is taken: what is overridden here is not TRL's public interface."""

_MEASURED_PROMPTS = 64  # of those held out
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_trl() -> None:
    """Raises RockledgeError unless that version of TRL can be imported."""
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        found = None
    if found != TRL:
        if version_info < (3, 11):
            version = ".".join(map(str, version_info[:2]))
            raise RockledgeError(
                f"on-policy needs TRL {TRL}, which needs Python 3.11 or newer, and this is {version}; make "
                "an environment with a newer Python"
            )
        is_there = "which is not installed" if found is None else f"and {found} is installed"
        raise RockledgeError(f"on-policy needs TRL {TRL}, {is_there}; run: {pip_install(f'trl=={TRL}')}")
    try:
        import rockledge.distillation.on_policy_trainer  # noqa: F401
    except (ImportError, RuntimeError) as error:  # of a package that it needs; transformers raises the latter
        reason = " ".join(str(error).split())[:200]
        raise RockledgeError(
            f"TRL {TRL} cannot be imported ({reason}); run: {pip_install(f'trl=={TRL}')}"
        ) from error


def check_on_policy(student: Path, files: Mapping[str, bytes], taught_by: Mapping[str, bytes]) -> None:
    """Raises UsageError where a student, with these small files of it and of its teacher, cannot have this
    stage."""
    if processes() > 1:
        raise UsageError(
            f"on-policy training runs in one process, not in {processes()}; start it without torchrun or "
            "accelerate, or leave on-policy out"
        )
    if (devices := torch.cuda.device_count()) > 1:
        raise UsageError(
            f"on-policy training uses one GPU, and {devices} are visible; set CUDA_VISIBLE_DEVICES=0, or "
            "leave on-policy out"
        )
    if not open_checkpoint(student).config.eos:
        raise UsageError(
            "the student has no token that ends a text, so its answers would never end; leave on-policy out"
        )
    own, other = vocabulary_size(files), vocabulary_size(taught_by)
    if own > other:
        raise UsageError(
            f"the student has embeddings for {own} tokens and the teacher for {other}, so it can write what "
            "the teacher cannot read; leave on-policy out"
        )


def learn_on_policy(
    first: DistillationTrainer,
    teacher: Any,
    prompts: Prompts,
    student: Path,
    settings: Settings,
    place: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Teaches the model that `first` has trained, in place: its weights at the end of this stage. Checkpoints
    are kept in `place`. Returns the numbers of the report, losses in nats a token.

    Raises:
        TrainingError: the loss is not finite, or the disk is full; checkpoints are kept.
    """
    from rockledge.distillation.on_policy_trainer import OnPolicyConfig, OnPolicyTrainer, PromptItems

    _free_optimizer(first)
    if (last := last_checkpoint(place / CHECKPOINTS)) is not None:
        drop_older(place / CHECKPOINTS, last[1])  # room for this stage's
    model, ends = first.accelerator.unwrap_model(first.model), open_checkpoint(student).config.eos
    if teacher.config.vocab_size > model.config.vocab_size:
        # Rows beyond the student's are padding, which nobody writes.
        teacher.resize_token_embeddings(model.config.vocab_size)
    own = replace(
        settings,
        learning_rate=settings.on_policy_rate,
        final_learning_rate=None,
        warmup_steps=None,
        evaluate_every=settings.evaluate_every or settings.on_policy,
    )
    order = sequence_order(len(prompts.train), settings.on_policy * settings.batch, settings.seed)
    kept = prompts.held_out[:_MEASURED_PROMPTS]
    run = Run(
        "on policy",
        model,
        PromptItems([prompts.train[number] for number in order]),
        PromptItems(kept) if kept else None,
        own,
        settings.on_policy,
        place / ON_POLICY,
        None,
    )
    arguments = training_arguments(
        own,
        run.steps,
        run.place,
        OnPolicyConfig,
        per_device_eval_batch_size=settings.micro_batch,
        max_completion_length=settings.answer,
        generation_kwargs={"eos_token_id": list(ends)},
        shuffle_dataset=False,
        pad_to_multiple_of=None,
        beta=1.0,
    )
    tokenizer = _tokenizer(student, ends[0])

    def made(**given: Any) -> OnPolicyTrainer:
        trainer = OnPolicyTrainer(ends=ends, teacher_model=teacher, processing_class=tokenizer, **given)
        trainer.check_loss()
        return trainer

    with _kept_special_tokens(model):
        trainer = train_with(run, arguments, made, progress)
        if kept and not any("eval_loss" in e and e["step"] == run.steps for e in trainer.state.log_history):
            trainer.evaluate()
    return _numbers(settings, trainer.state.log_history, len(kept))


def _free_optimizer(trainer: DistillationTrainer) -> None:
    """Frees the states of an optimizer that has done its work."""
    for holder in (trainer, trainer.callback_handler):
        holder.optimizer = holder.lr_scheduler = None
    trainer.accelerator.free_memory()


def _tokenizer(student: Path, end: int) -> Any:
    """transformers' tokenizer, which TRL asks for its special tokens."""
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(student, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CheckpointError(
            f"transformers cannot load the tokenizer of {student} ({reason}); fetch it again"
        ) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    return tokenizer


@contextmanager
def _kept_special_tokens(model: Any) -> Iterator[None]:
    """The Trainer and TRL write the tokenizer's special tokens into the model's configurations; afterwards
    they are what they were."""
    holders = (model.config, model.generation_config)
    before = [
        {name: getattr(holder, name) for name in _SPECIAL if hasattr(holder, name)} for holder in holders
    ]
    try:
        yield
    finally:
        for holder, values in zip(holders, before, strict=True):
            for name in _SPECIAL:
                if name in values:
                    setattr(holder, name, values[name])
                elif hasattr(holder, name):
                    delattr(holder, name)


def _numbers(settings: Settings, history: list[dict[str, Any]], measured: int) -> dict[str, Any]:
    held_out = [entry for entry in history if "eval_loss" in entry]
    return {
        "steps": settings.on_policy,
        "answers": settings.on_policy * settings.batch,
        "longest_answer": settings.answer,
        "held_out_prompts": measured,
        "held_out_before": next((e["eval_loss"] for e in held_out if e["step"] == 0), None),
        "held_out_after": held_out[-1]["eval_loss"] if held_out else None,
        "curve": [
            {key: entry[name] for key, name in _CURVE.items() if name in entry}
            for entry in history
            if "loss" in entry
        ],
    }


# TRL's names of what it logs in every step.
_CURVE = {
    "step": "step",
    "reverse_kl": "loss",
    "entropy": "entropy",
    "answer_tokens": "completions/mean_length",
    "cut_answers": "completions/clipped_ratio",
    "learning_rate": "learning_rate",
}
