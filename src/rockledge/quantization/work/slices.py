"""How much work is done at a time, and how that shrinks when a device runs out of memory.

What is sliced (sequences of a forward pass, tokens whose logits exist, rows that are rounded) is sliced for
memory only. A piece of work that fails is done again from its start, so it must not have changed anything.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from rockledge.errors import RockledgeError

_T = TypeVar("_T")
_LEAST = 1 / 64


class Slices:
    """`share` of their usual size at which slices are taken: at first 1, halved at every lack of memory."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def of(self, usual: int) -> int:
        """The size of a slice that is usually of `usual` items; at least one."""
        return max(1, int(usual * self.share))

    def fitting(self, work: Callable[[], _T]) -> _T:
        """What `work` returns; it is called again, with smaller slices, each time memory runs out.

        RockledgeError when slices of 1/64 are still too large.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                if self.share <= _LEAST:
                    raise RockledgeError(
                        "the device runs out of memory even in the smallest slices; free some of it, or use "
                        "--device cpu"
                    ) from error
                self.share /= 2
            # Outside the handler: the exception keeps the failed work's tensors alive.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def notes(self) -> list[str]:
        """One sentence for the report if slices were made smaller."""
        if self.share == 1:
            return []
        return [f"The device ran out of memory; work was done in slices of {self.share:g} of the usual size."]
