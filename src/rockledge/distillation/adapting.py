"""`--adapt-teacher`: the teacher learns the domain first, by LoRA on the same data.

A teacher that never saw the domain pulls the student away from it. Minitron calls this teacher correction
(arXiv 2408.11796). The adapter is merged in memory; the teacher's files are not touched. Where logits are
cached it is kept beside them: other runs with the same teacher and data take both.
"""

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from rockledge.distillation.lessons import Lessons
from rockledge.distillation.loading import load_model, with_lora, with_merged
from rockledge.distillation.resuming import TEACHER, TEACHER_ADAPTER
from rockledge.distillation.sequence_order import OrderedSequences
from rockledge.distillation.settings import Settings
from rockledge.distillation.training import Progress, Run, train
from rockledge.model.files_digest import files_digest


def adapted_teacher(
    teaching: Path,
    settings: Settings,
    lessons: Lessons,
    steps: int,
    place: Path,
    dtype: torch.dtype,
    progress: Progress,
) -> tuple[Any, str, str]:
    """(the teacher, SHA-256 of its adapter, a note): trained for `adapt_tokens`, or as long as the student.

    A finished adapter in `place` is taken as it is.
    """
    own, steps = _of_teacher(settings), _steps(settings, steps)
    finished = place / TEACHER_ADAPTER
    if not finished.is_dir():
        run = Run(
            "adapt teacher",
            with_lora(load_model(teaching, torch.float32), settings.adapt_rank, settings.seed),
            OrderedSequences(lessons.train, lessons.order[: steps * settings.batch]),
            lessons.measured(None),
            own,
            steps,
            place / TEACHER,
            None,
        )
        trainer = train(run, progress)
        partial = place / f"{TEACHER_ADAPTER}.partial"
        trainer.save_model(str(partial))
        if trainer.args.process_index == 0:
            os.replace(partial, finished)
        trainer.accelerator.wait_for_everyone()
        del trainer, run
    model = with_merged(teaching, finished)
    digest = sha256((finished / "adapter_model.safetensors").read_bytes()).hexdigest()
    shown = steps * settings.batch * settings.sequence
    note = f"The teacher was adapted to the data first: LoRA of rank {settings.adapt_rank}, {shown:,} tokens."
    return model.to(dtype), digest, note


def adapter_described(teaching: Path, settings: Settings, lessons: Lessons, steps: int) -> dict[str, Any]:
    """What the adapter depends on, for a run of so many steps."""
    own, steps = _of_teacher(settings), _steps(settings, steps)
    order = lessons.order[: steps * settings.batch]
    return {
        "teacher": files_digest(teaching),
        "data": lessons.sha256,
        "order": sha256(order.tobytes()).hexdigest(),
        **{name: getattr(own, name) for name in _LEARNT_BY},
    }


def adapter_place(cache: Path, described: dict[str, Any]) -> Path:
    """Its directory in a cache of logits."""
    return cache / f"adapter-{sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:24]}"


_LEARNT_BY = ("lora", "learning_rate", "batch", "bf16", "seed", "trainer")


def _of_teacher(settings: Settings) -> Settings:
    """The settings of the teacher's own training: LoRA on the data alone."""
    return replace(
        settings,
        data_weight=1.0,
        hidden_weight=0.0,
        learning_rate=settings.adapt_learning_rate,
        final_learning_rate=None,
        warmup_steps=None,
        lora=settings.adapt_rank,
        quantization_aware=None,
    )


def _steps(settings: Settings, steps: int) -> int:
    if settings.adapt_tokens is None:
        return steps
    return min(steps, max(1, -(-settings.adapt_tokens // (settings.sequence * settings.batch))))
