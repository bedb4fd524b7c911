"""Students beside their teacher, layer by layer: each layer is cut, refitted and run on, and their losses
compared at the end.

The teacher runs through the calibration text once for all students. In memory are one layer of it, the same
layer cut for each student, and everybody's states. A student's layer waits until the teacher has reached the
next one that stays: that is where its feed-forward part is to lead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

import torch
from torch import Tensor

from rockledge.errors import RockledgeError
from rockledge.model.block import Branch, decoder
from rockledge.model.checkpoint import Checkpoint
from rockledge.pruning.importance import Importance, Progress
from rockledge.pruning.refit import Refit
from rockledge.pruning.students import Kept, student_head, student_layer
from rockledge.pruning.walk import batches, through, token_losses, writer
from rockledge.quantization.float_model.forward import (
    block_weights,
    branch_forward,
    embed_tokens,
    head_weights,
)

Sink = Callable[[int, Mapping[str, Tensor]], None]
"""Called with a student's layer number and its finished weights by role."""


@dataclass(frozen=True)
class Outcome:
    """Losses of the held-out tokens [S, T - 1], nats, float64: of the student just cut, and after the
    refit."""

    cut: Tensor
    refitted: Tensor

    @property
    def fits(self) -> bool:
        """Whether the refit helps: on little text, of another kind than the held-out part, it may not."""
        return _mean(self.refitted) <= _mean(self.cut)

    @property
    def best(self) -> Tensor:
        """The losses with or without it, whichever are less."""
        return self.refitted if self.fits else self.cut


def least_loss(outcomes: Sequence[Outcome]) -> int:
    """The place of the student with the least loss; RockledgeError where none has a finite one."""
    losses = [_mean(one.best) for one in outcomes]
    if min(losses) == inf:
        raise RockledgeError(
            "what is left of the teacher has no finite loss on the calibration text; prune less"
        )
    return losses.index(min(losses))


def _mean(losses: Tensor) -> float:
    """Infinite where it is not a number."""
    mean = float(losses.mean())
    return mean if isfinite(mean) else inf


@dataclass
class _Student:
    kept: Kept
    cut: Tensor
    states: Tensor
    done: int = 0
    waiting: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def follow(
    checkpoint: Checkpoint,
    tokens: Tensor,
    held: int,
    found: Importance,
    students: Sequence[Kept],
    device: torch.device | str,
    progress: Progress,
    stage: str,
    sink: Sink | None = None,
    refit: bool = True,
) -> tuple[Tensor, list[Outcome]]:
    """Losses of the teacher, and of every student, on the last `held` sequences of `tokens` int64 [S, T]; the
    others are refitted on, unless `refit` is false. `sink` gets the layers of the first student as they are
    finished."""
    tree = decoder(checkpoint.config)
    states = embed_tokens(checkpoint, tokens)
    running = [
        _Student(kept, states[-held:][..., kept.hidden].clone(), states[..., kept.hidden].clone())
        for kept in students
    ]
    for number, layer in enumerate(tree.layers):
        weights = block_weights(checkpoint, number, device)
        targets: dict[str, Tensor] = {}
        for branch in layer.branches:
            states = _taught(weights, states, branch, checkpoint, targets, device)
        for student in running:
            _begin(student, number, weights, targets, checkpoint, found)
        for student in running:
            left = student.kept.numbers[student.done + 1 :]
            if student.waiting and (number + 1 == len(tree.layers) or number + 1 in left[:1]):
                finished = _finish(student, states, held, device, refit)
                if sink is not None and student is running[0]:
                    sink(student.done - 1, finished)
        progress(stage, number + 1, len(tree.layers))
    head = head_weights(checkpoint, device)
    last = tokens[-held:]
    outcomes = []
    for student in running:
        own = student_head(head, student.kept, found, tree.norm_eps)
        small = decoder(student.kept.config)
        ends = student.cut, student.states[-held:]
        outcomes.append(Outcome(*(token_losses(own, end, last, small) for end in ends)))
    return token_losses(head, states[-held:], last, tree), outcomes


def _taught(
    weights: Mapping[str, Tensor],
    states: Tensor,
    branch: Branch,
    checkpoint: Checkpoint,
    targets: dict[str, Tensor],
    device: torch.device | str,
) -> Tensor:
    """The teacher's states after a branch; `targets` gets what its student is to write: the states, or with a
    norm after the body the body's own outputs."""
    tree, role = decoder(checkpoint.config), writer(branch)
    if branch.after is None:
        targets[role] = through(weights, states, tree, branch, device)
        return targets[role]
    written: list[Tensor] = []

    def keep(where: str, y: Tensor) -> Tensor:
        if where == role:
            written.append(y.cpu())
        return y

    states = through(weights, states, tree, branch, device, outputs=keep)
    targets[role] = torch.cat(written)
    return states


def _begin(
    student: _Student,
    number: int,
    weights: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    found: Importance,
) -> None:
    if number not in student.kept.numbers:
        return
    tree = decoder(checkpoint.config)
    student.waiting = student_layer(
        tree.layers[number], weights, student.kept, student.done, found.layers[number], tree.norm_eps
    )
    student.targets = {role: target[..., student.kept.hidden] for role, target in targets.items()}


def _finish(
    student: _Student, reached: Tensor, held: int, device: torch.device | str, refit: bool
) -> dict[str, Tensor]:
    """Refits the waiting layer, runs the student's states through it, and returns its weights."""
    tree = decoder(student.kept.config)
    layer, weights = tree.layers[student.done], student.waiting
    for branch in layer.branches:
        student.cut = through(weights, student.cut, tree, branch, device)
    last = layer.feed_forward
    if last.after is None:
        student.targets[writer(last)] = reached[..., student.kept.hidden]
    for branch in layer.branches:
        role, states = writer(branch), student.states
        if refit:
            weights[role] = weights[role] + _change(
                weights, states[:-held], student.targets[role][:-held], branch, student, device
            )
        student.states = through(weights, states, tree, branch, device)
    student.done += 1
    student.waiting, student.targets = {}, {}
    return weights


def _change(
    weights: Mapping[str, Tensor],
    states: Tensor,
    targets: Tensor,
    branch: Branch,
    student: _Student,
    device: torch.device | str,
) -> Tensor:
    """What the refit of a branch adds to its last matrix."""
    tree, role = decoder(student.kept.config), writer(branch)
    place = branch.body.groups[1].place
    rows, inputs = weights[role].shape
    refit = Refit(rows, inputs, device)
    seen: dict[str, Tensor] = {}

    def see(where: str, x: Tensor) -> Tensor:
        if where == place:
            seen["inputs"] = x
        return x

    def keep(where: str, y: Tensor) -> Tensor:
        if where == role:
            seen["outputs"] = y
        return y

    for part in batches(states):
        before, target = states[part].to(device), targets[part].to(device)
        branch_forward(weights, before, tree, branch, see, keep)
        wanted = (target - before) / branch.multiplier if branch.after is None else target
        refit.add(seen["inputs"], wanted - seen["outputs"], target)
    return refit.change()
