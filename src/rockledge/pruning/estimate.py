"""What a run of `prune` will take, from the teacher's shape alone: no weights are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rockledge.model.block import Decoder, decoder
from rockledge.model.config import ModelConfig
from rockledge.pruning.depth import AGAIN, LAYERS, TOGETHER
from rockledge.pruning.shape import Shape, pruned_config
from rockledge.quantization.calibration.sequences import HELD_OUT
from rockledge.quantization.estimate import Speed

DEPTH_SEQUENCES: Final = 2
"""Calibration sequences on which layers are left out."""
_PROGRAM_BYTES: Final = 450e6  # as quantize's
_STEP_TOKENS, _LOGIT_TOKENS = 2048, 512  # as `walk` has them
_READ_PASSES: Final = 12  # over a weight that is read: decoding, cutting
_TOKEN_PASSES: Final = 60  # over a channel of a token in a layer: norms, energies, errors
_SOLVE: Final = 4.0  # operations of a factor, for each cube of its inputs, in the time of fp64


@dataclass(frozen=True)
class PruneEstimate:
    """Seconds of every stage, by the names that progress is reported with, and the most bytes of memory and
    of disk."""

    stages: Mapping[str, float]
    peak_memory_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(self.stages.values())


def estimate_prune(
    teacher: ModelConfig,
    shapes: Sequence[Shape],
    *,
    tokens: int,
    length: int,
    speed: Speed,
    item_bytes: int = 2,
) -> PruneEstimate:
    """The cost of choosing among `shapes` with so many calibration `tokens` in sequences of `length`, and of
    writing one in floats of `item_bytes`."""
    tree = decoder(teacher)
    every = tokens + HELD_OUT * length
    depth = min(DEPTH_SEQUENCES * length, tokens)
    students = [decoder(pruned_config(teacher, shape)) for shape in shapes]
    largest = max(students, key=lambda one: one.parameters)
    costs = {"importance": _forward(tree, tokens)}
    if any(shape.layers < teacher.layers for shape in shapes):
        # Every layer is left out once, and those after it run again; then so with half of them gone; then
        # four choices of every number of layers.
        choices = 4 * len({shape.layers for shape in shapes})
        for name, models in ((LAYERS, teacher.layers / 2), (AGAIN, teacher.layers / 4), (TOGETHER, choices)):
            costs[name] = _times(_forward(tree, depth), 1 + models)
    if len(students) > 1:
        costs["shapes"] = _following(tree, students, every, tokens)
    costs["write"] = _following(tree, [largest], every, tokens)
    return PruneEstimate(
        stages={
            name: sums / speed.products + numbers * speed.seconds_per_number
            for name, (sums, numbers) in costs.items()
        },
        peak_memory_bytes=int(_memory(teacher, tree, students, every, depth if LAYERS in costs else 0)),
        disk_bytes=item_bytes * largest.parameters,
    )


_Cost = tuple[float, float]
"""Operations of matrix products, and passes over numbers."""


def _forward(tree: Decoder, tokens: int) -> _Cost:
    """All layers once, read from the file, and the head on some tokens."""
    body, ends = _matrix_numbers(tree), tree.embed.rows * tree.embed.cols
    across = tokens * (tree.hidden + tree.layers[0].gated.gate.rows) * len(tree.layers)
    return 2 * body * tokens + 2 * ends * min(tokens, _STEP_TOKENS), _READ_PASSES * (
        body + ends
    ) + _TOKEN_PASSES * across


def _following(tree: Decoder, students: Sequence[Decoder], tokens: int, fitted: int) -> _Cost:
    """The teacher, and students that are refitted on `fitted` of the tokens."""
    sums, numbers = _forward(tree, tokens)
    for student in students:
        own = _times(_forward(student, tokens), 2)
        sums, numbers = sums + own[0], numbers + own[1]
        for layer in student.layers:
            for linear in (layer.attends.out, layer.gated.down):
                sums += 2 * fitted * linear.cols * (linear.cols + linear.rows)
                sums += _SOLVE * linear.cols**2 * (linear.cols + linear.rows)
    return sums, numbers


def _times(cost: _Cost, count: float) -> _Cost:
    return count * cost[0], count * cost[1]


def _memory(
    teacher: ModelConfig, tree: Decoder, students: Sequence[Decoder], tokens: int, depth: int
) -> float:
    """One layer of the teacher and of every student; states before, amid and after it; at the ends embedding
    and head with logits."""
    layer = 4 * _matrix_numbers(tree) / teacher.layers
    cut = sum(4 * _matrix_numbers(one) / len(one.layers) for one in students)
    states = 4 * tokens * (4 * teacher.hidden + sum(5 * one.hidden for one in students))
    solving = max(24 * linear.cols**2 for one in students for linear in one.layers[0].linears)
    working = 4 * _STEP_TOKENS * (6 * teacher.ffn + 8 * teacher.hidden)
    without = 4 * depth * teacher.hidden * (teacher.layers + 2)
    logits = 4 * 4 * _LOGIT_TOKENS * teacher.vocab
    ends = 2 * 4 * tree.embed.rows * tree.embed.cols
    return _PROGRAM_BYTES + max(
        layer + cut + states + solving + working, layer + without + working, ends + logits + states
    )


def _matrix_numbers(tree: Decoder) -> int:
    return sum(linear.rows * linear.cols for layer in tree.layers for linear in layer.linears)
