"""A teacher's distribution, kept as its k most probable tokens and the mass of all others together.

A vocabulary has 50,000 to 250,000 tokens, of which a few dozen hold nearly all of the mass. What is kept for
each place is the log-probabilities of k tokens, and one more number: the logarithm of what the others have
between them. Without it the k would have to be scaled up to 1, and a student would learn to be surer than its
teacher. All of it is rounded to half precision here, whether it then goes to disk or straight into the loss,
so a cached run learns from the same numbers as one without a cache.
"""

from dataclasses import dataclass

import torch

CHUNK_NUMBERS = 1 << 26
"""Logits that are worked on at a time, in float32: 256 MB."""


@dataclass(frozen=True)
class TopLogits:
    """`ids` int32 [N, k], the most probable first, and `logs` float16 [N, k + 1]: their log-probabilities and
    last the logarithm of the mass of all other tokens, -inf where there are none."""

    ids: torch.Tensor
    logs: torch.Tensor


def chunk_rows(vocabulary: int) -> int:
    """How many rows of logits are worked on at a time."""
    return max(1, CHUNK_NUMBERS // vocabulary)


@torch.no_grad()
def top_logits(logits: torch.Tensor, k: int) -> TopLogits:
    """The distributions of logits [N, V]; k is at most V."""
    k = min(k, logits.shape[-1])
    ids, logs = [], []
    for rows in logits.split(chunk_rows(logits.shape[-1])):
        wide = rows.float()
        total = wide.logsumexp(-1, keepdim=True)
        best, found = wide.topk(k, dim=-1)
        rest = wide.scatter(-1, found, -torch.inf).logsumexp(-1, keepdim=True)
        ids.append(found.to(torch.int32))
        logs.append((torch.cat([best, rest], -1) - total).to(torch.float16))
    if not ids:
        empty = logits.new_zeros((0, k), dtype=torch.int32)
        return TopLogits(empty, logits.new_zeros((0, k + 1), dtype=torch.float16))
    return TopLogits(torch.cat(ids), torch.cat(logs))


def divergence(logits: torch.Tensor, teacher: TopLogits, total: torch.Tensor | None = None) -> torch.Tensor:
    """Forward KL divergence float32 [N], in nats, of a student's logits [N, V] from a teacher. `total` is the
    logarithm of the sum of their exponentials [N, 1], where it is known.

    Both distributions are taken over k + 1 outcomes, the k tokens and "any other". By the log-sum inequality
    that is at most the divergence over the whole vocabulary, and equal to it for k = V; its gradient moves
    the mass of the other tokens together and leaves how they share it alone.
    """
    wide, ids = logits.float(), teacher.ids.long()
    total = wide.logsumexp(-1, keepdim=True) if total is None else total
    known = wide.gather(-1, ids) - total
    kept = teacher.logs.float()
    if ids.shape[-1] < wide.shape[-1]:
        rest = wide.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - total
        known = torch.cat([known, rest], -1)
    else:
        kept = kept[..., :-1]
    kept = kept - kept.logsumexp(-1, keepdim=True)  # what rounding has taken from a sum of 1
    mass = kept.exp()
    # Where the teacher has no mass there is nothing to learn, and 0 * inf would not be a number.
    terms = torch.where(mass == 0, torch.zeros_like(mass), mass * (kept - known))
    return terms.sum(-1)
