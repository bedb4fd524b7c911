"""What is learnt of a text, in which order, and what is held out: the sequences that a run really uses."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import torch

from rockledge.distillation.logit_cache import LogitCache
from rockledge.distillation.packing import IGNORED, Packed
from rockledge.distillation.sequence_order import OrderedSequences, sequence_order
from rockledge.distillation.training_text import TrainingText


@dataclass(frozen=True)
class Lessons:
    """`train` are the sequences that `order`, int64, names by their numbers. Those of `held_out` are numbered
    after them."""

    train: Packed
    order: npt.NDArray[np.int64]
    held_out: Packed

    @property
    def rows(self) -> list[int]:
        """Learnt tokens of every sequence."""
        return [
            int((labels != IGNORED).sum()) for part in (self.train, self.held_out) for labels in part.labels
        ]

    @property
    def sha256(self) -> str:
        """Of all sequences."""
        digest = sha256()
        for part in (self.train, self.held_out):
            for array in (part.ids, part.positions, part.labels):
                digest.update(repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()

    def measured(self, cache: LogitCache | None) -> OrderedSequences | None:
        """The sequences that are held out; None where there are none."""
        if not len(self.held_out):
            return None
        return OrderedSequences(self.held_out, np.arange(len(self.held_out)), cache, first=len(self.train))

    def sequence(self, number: int) -> dict[str, torch.Tensor]:
        """One sequence as a batch."""
        first = len(self.train)
        part, own = (self.train, number) if number < first else (self.held_out, number - first)
        return {
            "input_ids": torch.from_numpy(part.ids[own : own + 1]),
            "position_ids": torch.from_numpy(part.positions[own : own + 1]),
            "labels": torch.from_numpy(part.labels[own : own + 1]),
        }


def lessons_of(text: TrainingText, sequences: int, seed: int) -> Lessons:
    """So many sequences of a text, some of them more than once where it has fewer."""
    order = sequence_order(len(text.train), sequences, seed)
    used = np.unique(order)
    train = Packed(text.train.ids[used], text.train.positions[used], text.train.labels[used])
    return Lessons(train, np.searchsorted(used, order), text.held_out)
