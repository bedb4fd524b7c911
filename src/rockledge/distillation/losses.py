"""The loss of a batch as sums over its learnt tokens, a part of the vocabulary-sized logits at a time."""

from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from rockledge.distillation.packing import IGNORED
from rockledge.distillation.top_logits import TopLogits, chunk_rows, divergence


@dataclass(frozen=True)
class Sums:
    """Sums over `tokens`, in nats: `kl` from the teacher (None without one) and `data`, the cross-entropy."""

    kl: torch.Tensor | None
    data: torch.Tensor
    tokens: int


def learnt_rows(labels: torch.Tensor) -> torch.Tensor:
    """Which places of [B, T] predict a token that is learnt, bool [B * T], the last of a sequence never."""
    rows = torch.zeros_like(labels, dtype=torch.bool)
    rows[:, :-1] = labels[:, 1:] != IGNORED
    return rows.reshape(-1)


def token_sums(logits: torch.Tensor, labels: torch.Tensor, teacher: TopLogits | None) -> Sums:
    """Sums for logits [B, T, V] and labels int64 [B, T]; `teacher` has a row for every learnt token, in
    order.

    Logits are worked on in float32 and in chunks, which are computed again for their gradient: of the whole,
    only the logits themselves and their gradient are in memory.
    """
    learnt = learnt_rows(labels)
    following = labels.roll(-1, dims=1).reshape(-1)
    rows, chunks = chunk_rows(logits.shape[-1]), []
    done = 0
    for part, mask, target in zip(
        logits.flatten(0, 1).split(rows), learnt.split(rows), following.split(rows), strict=True
    ):
        count = int(mask.sum())
        if not count:
            continue
        ids, logs = None, None
        if teacher is not None:
            ids, logs = teacher.ids[done : done + count], teacher.logs[done : done + count]
        done += count
        chunks.append(checkpoint(_chunk_sums, part, mask, target, ids, logs, use_reentrant=False))
    zero = logits.flatten()[0].float() * 0  # a batch without learnt tokens still takes part in the step
    data = sum((chunk[0] for chunk in chunks), zero)
    kl = None if teacher is None else sum((chunk[1] for chunk in chunks), zero)
    return Sums(kl, data, done)


def _chunk_sums(
    logits: torch.Tensor,
    mask: torch.Tensor,
    target: torch.Tensor,
    ids: torch.Tensor | None,
    logs: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = logits[mask].float()
    total = wide.logsumexp(-1, keepdim=True)
    data = (total - wide.gather(-1, target[mask][:, None])).sum()
    if ids is None or logs is None:
        return data, data.new_zeros(())
    return data, divergence(wide, TopLogits(ids, logs), total).sum()
