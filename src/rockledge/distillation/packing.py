"""Documents as sequences of one length, end to end, so that no place is wasted on padding.

A document that does not fit goes on in the next sequence. Positions begin at 0 in every document and in every
sequence: by that transformers knows where one ends, and attention does not reach across.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.distillation.learnt_tokens import Tokens

IGNORED = -100  # the label that losses of PyTorch leave out


@dataclass(frozen=True)
class Packed:
    """Sequences [S, T]: token ids int64, their positions int64, and labels int64, the ids again or -100 where
    a token is not learnt."""

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def learnt(self) -> int:
        """Tokens that are learnt."""
        return int((self.labels != IGNORED).sum())


def packed(documents: Sequence[Tokens], length: int) -> Packed:
    """Sequences of `length` tokens; what is left at the end is less than one and left out. Sequences in which
    nothing is learnt are left out too."""
    none = np.zeros(0, np.int64)
    ids = np.concatenate([none, *(document.ids for document in documents)])
    learnt = np.concatenate([none.astype(np.bool_), *(document.learnt for document in documents)])
    positions = np.concatenate([none, *(np.arange(len(document.ids)) for document in documents)])
    whole = len(ids) // length * length
    shape = (-1, length)
    ids, learnt, positions = (a[:whole].reshape(shape) for a in (ids, learnt, positions))
    # What is before the first token of a sequence is in another one.
    learnt = learnt & (np.arange(length) > 0)
    positions = positions - _continued(positions)
    labels = np.where(learnt, ids, IGNORED)
    some = learnt.any(axis=1)
    return Packed(ids[some], positions[some], labels[some])


def _continued(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How far a document had come when a sequence began, int64 [S, T], 0 from the next document on."""
    begun = np.cumsum(positions == 0, axis=1) - (positions[:, :1] == 0)
    return np.where(begun == 0, positions[:, :1], 0)
