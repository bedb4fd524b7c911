"""The shapes that a request leaves to choose from."""

from collections.abc import Sequence

from rockledge.errors import BudgetError, UsageError
from rockledge.model.config import ModelConfig
from rockledge.pruning.request import PruneRequest
from rockledge.pruning.shape import body_parameters, check_widths, shape_of
from rockledge.pruning.targets import Allowed, Space, Target, Tried, shapes_for, shapes_with, smallest


def candidates(config: ModelConfig, asked: PruneRequest, allowed: Allowed | None = None) -> list[Tried]:
    """The shapes to try, largest first; `allowed` decides for `asked.fit`. UsageError or BudgetError says
    what cannot be met, and the nearest that can."""
    if config.headless:
        raise UsageError(
            "the teacher has no language head, and layers are chosen by the loss of what it writes; give a "
            "model that generates text"
        )
    space = Space(config, asked.sizes, asked.kv_heads, asked.by)
    check_widths(config, space.start)
    if not asked.targeted:
        if space.start == shape_of(config):
            raise UsageError("these are the teacher's own sizes; give at least one that is smaller")
        return [Tried("as asked", space.start)]
    if asked.target_params is not None:
        return shapes_with(space, Target(asked.target_params))
    if asked.body is not None:
        return shapes_with(space, Target(int(asked.body * body_parameters(config)), body=True))
    assert allowed is not None
    if allowed(config):
        raise UsageError(
            f"the teacher itself is fast and small enough for {asked.fit}; quantize it, or give another "
            "target"
        )
    tried = shapes_for(space, allowed)
    if not tried:
        least = smallest(space)
        speed = "" if asked.decode_tok_s is None else f" at {asked.decode_tok_s:g} tok/s"
        raise BudgetError(
            f"not even {least} fits {asked.fit}{speed}; give a lower speed, a larger board, or begin with a "
            "smaller teacher"
        )
    return tried


def width_notes(config: ModelConfig, tried: Sequence[Tried]) -> list[str]:
    """Notes on widths that do not suit what the student is quantised to."""
    return list(dict.fromkeys(note for one in tried for note in check_widths(config, one.shape)))
