"""The teacher's side of a run: the teacher as it is or adapted, asked in every step or once for all."""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from rockledge.distillation.adapting import adapted_teacher
from rockledge.distillation.filling import fill
from rockledge.distillation.fitting import vocabulary_size
from rockledge.distillation.lessons import Lessons
from rockledge.distillation.loading import load_model
from rockledge.distillation.logit_cache import CacheKey, LogitCache
from rockledge.distillation.model_directory import small_files
from rockledge.distillation.settings import Settings
from rockledge.distillation.teacher import Teacher
from rockledge.distillation.training import Progress, processes
from rockledge.model.files_digest import files_digest


@dataclass(frozen=True)
class TeacherSide:
    """`directory` holds the teacher, `files` are the student's small ones; its adapter is in `kept`. `notes`
    gets what the report says of it."""

    directory: Path
    files: dict[str, bytes]
    settings: Settings
    lessons: Lessons
    steps: int
    kept: Path
    notes: list[str]
    progress: Progress

    def ready(self) -> tuple[LogitCache | None, Teacher | None]:
        """The cache of its logits, filled, or the teacher itself."""
        settings = self.settings
        model, adapter = self._adapted()
        if settings.cache_logits is None:
            return None, self._asked(model)
        key = CacheKey(
            sha256((files_digest(self.directory) + adapter).encode()).hexdigest(),
            self.lessons.sha256,
            sha256(self.files["tokenizer.json"]).hexdigest(),
            min(settings.top_k, self._vocabulary),
            self._vocabulary,
            str(self._dtype),
        )
        cache = LogitCache(Path(settings.cache_logits), key, self.lessons.rows)
        cache.check_room(settings.cache_bytes)
        if missing := cache.missing(int(os.environ.get("RANK", "0")), processes()):
            taught, sequence = self._asked(model), self.lessons.sequence
            fill(cache, missing, taught, sequence, str(_device()), settings.bf16, self.progress)
        return cache, None

    def online(self) -> Teacher:
        """The teacher itself, adapted where that is asked for."""
        return self._asked(self._adapted()[0])

    def _adapted(self) -> tuple[Any | None, str]:
        """The adapted teacher and SHA-256 of its adapter; (None, "") where it is to stay as it is."""
        if not self.settings.adapt_teacher:
            return None, ""
        model, adapter, note = adapted_teacher(
            self.directory, self.settings, self.lessons, self.steps, self.kept, self._dtype, self.progress
        )
        if note not in self.notes:
            self.notes.append(note)
        return model, adapter

    def _asked(self, model: Any | None) -> Teacher:
        """The teacher as it is, or the adapted `model` of it, to be asked."""
        taught = load_model(self.directory, self._dtype) if model is None else model
        taught.requires_grad_(False).eval().to(_device())
        settings, vocabulary = self.settings, self._vocabulary
        return Teacher(taught, min(settings.top_k, vocabulary), vocabulary, settings.hidden_weight > 0)

    @property
    def _vocabulary(self) -> int:
        """Where embeddings are padded, the logits of real tokens: those that teacher and student have."""
        return min(vocabulary_size(self.files), vocabulary_size(small_files(self.directory)))

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.settings.bf16 else torch.float32


def _device() -> torch.device:
    cuda = torch.cuda.is_available()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
