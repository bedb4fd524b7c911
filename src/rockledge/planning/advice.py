"""What would fit where a model does not: fewer bits, a shorter context, fewer streams, a smaller model, or
weights that are read from a disk."""

from collections.abc import Iterator
from dataclasses import dataclass

from rockledge.model.config import ModelConfig
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.fit import fits, least_bits, longest, most_streams, parameters
from rockledge.planning.plan import DEFAULT_BITS, Plan
from rockledge.planning.streaming import Streamed, streamed


@dataclass(frozen=True)
class Advice:
    """Each by itself makes it fit; None where it does not help. `bits`: a weight, at the same context and
    streams; the others at the default of `quantize`. `narrow_context`: the longest context with the fewest
    bits, where neither is enough by itself. `streaming`: the rest of the weights is read from a disk in every
    step."""

    bits: float | None
    context: int | None
    narrow_context: int | None
    streams: int | None
    model: str | None
    streaming: Streamed | None


def advice(plan: Plan) -> Advice:
    """For a plan that does not fit."""
    board, config, weights = plan.board, plan.config, plan.default_bytes
    context = longest(board, config, weights, plan.streams) or None
    both = plan.budget is None and context is None
    narrow = longest(board, config, _least(config), plan.streams) if both else 0
    return Advice(
        bits=plan.budget,
        context=context,
        narrow_context=narrow or None,
        streams=most_streams(board, config, weights, plan.context) or None,
        model=next(_smaller(plan), None),
        streaming=streamed(plan),
    )


def _least(config: ModelConfig) -> int:
    """Bytes for the fewest bits, as they are written."""
    return int(least_bits(config) * parameters(config) / 8) + 1


def _smaller(plan: Plan) -> Iterator[str]:
    """Well-known models with fewer parameters that fit as it was asked for, the largest first."""
    known = ((name, shape.config) for name, shape in KNOWN_SHAPES.items())
    smaller = [(name, config) for name, config in known if parameters(config) < parameters(plan.config)]
    for name, config in sorted(smaller, key=lambda one: parameters(one[1]), reverse=True):
        weights = int(DEFAULT_BITS * parameters(config) / 8)
        if plan.context <= config.context and fits(plan.board, config, weights, plan.tokens):
            yield name
