"""One stored matrix beside its float original, as the checks of single linears get it."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from rockledge.conversion.folds import Fold
from rockledge.doctor.likeness import Likeness, likeness
from rockledge.formats.hadamard import Rotation
from rockledge.formats.packing import PackedLinear


@dataclass(frozen=True)
class StoredLinear:
    """`stored` and `original` are real weights fp32 [N, K] in one basis; `packed` is how they are stored.
    `head`: rows of a head, 0 where rows do not belong to heads. `folds` are what was done to the original,
    with `rotation` where the stream is turned."""

    name: str
    packed: PackedLinear
    stored: Tensor
    original: Tensor
    head: int
    folds: tuple[Fold, ...]
    rotation: Rotation | None

    @cached_property
    def likeness(self) -> Likeness:
        """Row by row."""
        return likeness(self.stored, self.original)
