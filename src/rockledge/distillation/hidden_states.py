"""The hidden-state loss: layers of the student look where the teacher's look, by the angle between them.

Layers are paired evenly from first to last. Where the widths differ, a matrix for each pair maps the
student's states to the teacher's; it is learnt with the student and thrown away at the end.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

PROJECTIONS = "hidden_projections"
"""The attribute of the student that holds the matrices while it learns; its checkpoints have them too."""

_MOST_PAIRS = 4


def paired_layers(student: int, teacher: int) -> list[tuple[int, int]]:
    """(student's, teacher's) layers whose outputs are compared, counted from 1; the last ones are a pair."""
    count = min(_MOST_PAIRS, student, teacher)
    return [(round(student * i / count), round(teacher * i / count)) for i in range(1, count + 1)]


def add_projections(student: Any, widths: tuple[int, int], pairs: int, seed: int) -> None:
    """Gives the student a matrix for each pair, [teacher's width, student's width], where they differ."""
    mine, other = widths
    if mine == other:
        return
    generator = torch.Generator().manual_seed(seed)
    made = [nn.Linear(mine, other, bias=False) for _ in range(pairs)]
    for linear in made:
        nn.init.orthogonal_(linear.weight, generator=generator)
    setattr(student, PROJECTIONS, nn.ModuleList(made))


def drop_projections(student: Any) -> None:
    """Takes them away again."""
    if hasattr(student, PROJECTIONS):
        delattr(student, PROJECTIONS)


def hidden_sum(
    student: Any,
    states: Sequence[torch.Tensor],
    teacher_states: Sequence[torch.Tensor],
    learnt: torch.Tensor,
) -> torch.Tensor:
    """The sum over learnt tokens of 1 - cosine, averaged over pairs of layers.

    States are those of transformers' `output_hidden_states`, [B, T, H] each, the embedding's first; `learnt`
    is bool [B * T].
    """
    pairs = paired_layers(len(states) - 1, len(teacher_states) - 1)
    projections = getattr(student, PROJECTIONS, None)
    total = states[0].new_zeros((), dtype=torch.float32)
    for number, (mine, other) in enumerate(pairs):
        seen = states[mine].flatten(0, 1)[learnt]
        if projections is not None:
            seen = projections[number](seen)
        wanted = teacher_states[other].flatten(0, 1)[learnt]
        total = total + (1 - cosine_similarity(seen.float(), wanted.float(), dim=-1)).sum()
    return total / len(pairs)
