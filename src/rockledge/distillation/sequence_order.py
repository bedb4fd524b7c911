"""Which sequence is learnt when: one list for the whole run, by the seed alone.

Every pass over the data is another permutation, and a batch is the next `batch` entries. So the order depends
neither on how many processes share a batch nor on where a run was stopped.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from rockledge.distillation.logit_cache import LogitCache
from rockledge.distillation.packing import Packed
from rockledge.distillation.top_logits import TopLogits

CACHED_IDS, CACHED_LOGS = "teacher_ids", "teacher_logs"


def sequence_order(sequences: int, wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """The numbers of `wanted` sequences, int64, out of so many."""
    generator = np.random.default_rng(seed)
    passes = [generator.permutation(sequences) for _ in range(-(-wanted // sequences))]
    return np.concatenate(passes)[:wanted]


class OrderedSequences(Dataset[dict[str, Any]]):
    """The sequences of `text` in this order, with what a cache holds of the teacher. `first` is the number
    that the first sequence of `text` has in the cache."""

    def __init__(
        self,
        text: Packed,
        order: npt.NDArray[np.int64],
        cache: LogitCache | None = None,
        first: int = 0,
    ) -> None:
        self._text, self._order, self._cache, self._first = text, order, cache, first

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> dict[str, Any]:
        number = int(self._order[place])
        item: dict[str, Any] = {
            "number": torch.tensor(number),
            "input_ids": torch.from_numpy(self._text.ids[number]),
            "position_ids": torch.from_numpy(self._text.positions[number]),
            "labels": torch.from_numpy(self._text.labels[number]),
        }
        if self._cache is not None:
            ids, logs = self._cache.read(self._first + number)
            item[CACHED_IDS], item[CACHED_LOGS] = torch.from_numpy(ids), torch.from_numpy(logs)
        return item


def batch_of(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch of such items: sequences are stacked, the teacher's rows follow each other."""
    return {
        key: (torch.cat if key in (CACHED_IDS, CACHED_LOGS) else torch.stack)([item[key] for item in items])
        for key in items[0]
    }


def cached_teacher(inputs: dict[str, torch.Tensor]) -> TopLogits | None:
    """Takes the teacher's rows out of a batch; None where it has none."""
    ids, logs = inputs.pop(CACHED_IDS, None), inputs.pop(CACHED_LOGS, None)
    return None if ids is None or logs is None else TopLogits(ids, logs)
