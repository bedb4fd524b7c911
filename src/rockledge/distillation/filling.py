"""Fills a cache of logits: the teacher goes through every sequence once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from rockledge.distillation.logit_cache import LogitCache
from rockledge.distillation.teacher import Teacher
from rockledge.distillation.training import Progress
from rockledge.errors import TrainingError


def fill(
    cache: LogitCache,
    missing: Sequence[range],
    teacher: Teacher,
    sequence: Callable[[int], Mapping[str, torch.Tensor]],
    device: str,
    bf16: bool,
    progress: Progress,
) -> None:
    """Writes the `missing` shards; `sequence` gives a batch of one. TrainingError where the teacher's logits
    are not finite."""
    total, done = sum(map(len, missing)), 0
    for shard in missing:
        parts: list[Any] = []
        for number in shard:
            inputs = {name: tensor.to(device) for name, tensor in sequence(number).items()}
            context = torch.autocast(torch.device(device).type, torch.bfloat16) if bf16 else nullcontext()
            found = teacher.lesson(inputs, context).logits
            if bool(torch.isnan(found.logs).any()):
                raise TrainingError(
                    f"the teacher's logits of sequence {number} are not numbers; try without --bf16, or "
                    "fetch the teacher again"
                )
            parts.append((found.ids.cpu().numpy(), found.logs.cpu().numpy()))
            done += 1
            progress("teacher", done, total)
        cache.write(shard, parts)
