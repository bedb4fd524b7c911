"""Which pieces of the weights stay in memory, and how large the ring for the others is.

The budget minus cache, arena, what always stays and the ring is room for pieces. They are chosen evenly over
a step, so that between two that stay there is always something to read, and the disk never waits for a ring
that is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rockledge.artifact.uncached import BLOCK
from rockledge.board.streaming import ring_bytes

LEAST_PIECES = 2
"""Pieces that the ring must have room for: one is in use while the next one is read."""


@dataclass(frozen=True)
class Fit:
    """`resident[i]`: whether piece i stays in memory; `ring`: bytes of the ring for the others, 0 if all do.
    `kept` and `streamed` are bytes of pieces."""

    resident: tuple[bool, ...]
    ring: int
    kept: int
    streamed: int

    @property
    def bytes(self) -> int:
        """Of memory."""
        return self.ring + self.kept


def least_ring(sizes: Sequence[int]) -> int:
    """Bytes of the smallest ring for pieces of these sizes."""
    return LEAST_PIECES * max(sizes, default=0)


def fit(sizes: Sequence[int], room: int) -> Fit:
    """What fits into `room` bytes, at least `least_ring`, of pieces of these sizes."""
    total = sum(sizes)
    if total <= room:
        return Fit((True,) * len(sizes), 0, total, 0)
    ring = min(ring_bytes(max(sizes)), room) // BLOCK * BLOCK
    left = room - ring
    # Of what a step has come to, never more than the share that there is room for stays.
    resident, passed, kept = [], 0, 0
    for size in sizes:
        passed += size
        stays = (kept + size) * total <= left * passed
        kept += size if stays else 0
        resident.append(stays)
    return Fit(tuple(resident), ring, kept, total - kept)
