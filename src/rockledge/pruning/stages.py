"""The long stages of a run, each computed once however often the run is killed."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rockledge import __version__
from rockledge.model.checkpoint import Checkpoint
from rockledge.model.files_digest import files_digest
from rockledge.pruning.depth import Dropped, costs_without
from rockledge.pruning.finished import FinishedStages
from rockledge.pruning.follow import Outcome, follow
from rockledge.pruning.importance import Importance, LayerImportance, Progress, importance
from rockledge.pruning.students import Kept


def run_inputs(teacher: Path, sequences: Tensor, held_out: Tensor, device: str) -> dict[str, Any]:
    """What every stage depends on to the last bit: the teacher's files and the tokens, int64 [S, T]; and
    what computes, because sums in another order differ."""
    return {
        "version": __version__,
        "teacher": files_digest(teacher),
        "tokens": [hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in (sequences, held_out)],
        "lengths": [len(sequences), len(held_out)],
        "device": device,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def measured(
    finished: FinishedStages, source: Checkpoint, tokens: Tensor, device: str, say: Progress
) -> Importance:
    """`importance` of the teacher."""

    def compute() -> dict[str, Any]:
        found = importance(source, tokens, device, say)
        layers = [{**vars(layer), "normed": dict(layer.normed)} for layer in found.layers]
        return {**vars(found), "layers": layers}

    stored = finished.result("importance", None, compute)
    layers = tuple(LayerImportance(**layer) for layer in stored["layers"])
    return Importance(layers, stored["hidden"], stored["final_normed"])


def priced(
    finished: FinishedStages,
    source: Checkpoint,
    tokens: Tensor,
    sets: Iterable[Dropped],
    device: str,
    say: Progress,
    stage: str,
) -> dict[Dropped, float]:
    """`costs_without` the sets of layers, on the first of the teacher's tokens."""
    wanted = sorted(sorted(one) for one in set(sets))

    def compute() -> list[float]:
        found = costs_without(source, tokens, map(frozenset, wanted), device, say, stage)
        return [found[frozenset(one)] for one in wanted]

    prices = finished.result(stage, [len(tokens), wanted], compute)
    return {frozenset(one): price for one, price in zip(wanted, prices, strict=True)}


def compared(
    finished: FinishedStages,
    source: Checkpoint,
    tokens: Tensor,
    held: int,
    found: Importance,
    students: Sequence[Kept],
    device: str,
    say: Progress,
) -> list[Outcome]:
    """How the students that `follow` their teacher end; what each of them keeps is in its shape and its
    layers, given the importance."""

    def compute() -> list[dict[str, Tensor]]:
        _, outcomes = follow(source, tokens, held, found, students, device, say, "shapes")
        return [vars(one) for one in outcomes]

    each = [[vars(student.shape), student.numbers] for student in students]
    return [Outcome(**one) for one in finished.result("shapes", each, compute)]
