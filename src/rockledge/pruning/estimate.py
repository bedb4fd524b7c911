"""What a run of `prune` will take, from the teacher's shape alone: no weights are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rockledge.model.block import Decoder, decoder
from rockledge.model.config import ModelConfig
from rockledge.pruning.shape import Shape, pruned_config
from rockledge.quantization.calibration.sequences import HELD_OUT
from rockledge.quantization.estimate import Speed

DEPTH_SEQUENCES: Final = 2
"""Calibration sequences on which losses without layers are compared."""
_PROGRAM_BYTES: Final = 450e6  # as quantize's
_STEP_TOKENS, _LOGIT_TOKENS = 2048, 512  # as `walk` has them
_READ_PASSES: Final = 12  # over a weight that is read: decoding, cutting
_TOKEN_PASSES: Final = 60  # over a channel of a token in a layer: norms, energies, errors
_SOLVE: Final = 4.0  # operations of a factor, for each cube of its inputs, in the time of fp64


@dataclass(frozen=True)
class PruneEstimate:
    """Seconds in all, and the most bytes of memory and of disk."""

    seconds: float
    peak_memory_bytes: int
    disk_bytes: int


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
    held = HELD_OUT * length
    every = tokens + held
    body = _matrix_numbers(tree)
    ends = tree.embed.rows * tree.embed.cols
    students = [decoder(pruned_config(teacher, shape)) for shape in shapes]
    followed = [*students, max(students, key=lambda one: one.parameters)]  # the last one is written
    if len(students) == 1:
        followed = students
    dropping = any(shape.layers < teacher.layers for shape in shapes)
    sums: float = 2 * body * tokens  # importance
    depth = min(DEPTH_SEQUENCES * length, tokens)
    # Every layer is left out once, and the layers after it run again; then with half of them gone; then the
    # choices of every number of layers.
    rounds = 2 * teacher.layers / 2 + 4 * len({shape.layers for shape in shapes}) if dropping else 0
    sums += depth * rounds * (2 * body + 2 * ends)
    sums += (2 if len(students) > 1 else 1) * 2 * (body * every + ends * held)
    for student in followed:
        own = _matrix_numbers(student)
        sums += 4 * own * every + 4 * student.embed.rows * student.embed.cols * held
        for layer in student.layers:
            for linear in (layer.attends.out, layer.gated.down):
                sums += 2 * tokens * linear.cols * (linear.cols + linear.rows)
                sums += _SOLVE * linear.cols**2 * (linear.cols + linear.rows)
    numbers: float = _READ_PASSES * (body + ends) * (2 + 3 * dropping)
    numbers += _TOKEN_PASSES * every * (teacher.hidden + teacher.ffn) * teacher.layers * (1 + len(followed))
    most = max(one.parameters for one in students)
    return PruneEstimate(
        seconds=sums / speed.products + numbers * speed.seconds_per_number,
        peak_memory_bytes=int(_memory(teacher, tree, students, every, depth if dropping else 0)),
        disk_bytes=item_bytes * most,
    )


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
