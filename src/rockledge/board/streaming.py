"""Weights that do not fit into memory: what a step reads from the disk, and how long it then takes.

    bytes a step = (weights - embedding) - (budget - cache - arena - ring - what is always resident)
    ms a step    = max(bytes a step / rate of the disk, ms of the same step with all weights in memory)

Reading and computing overlap, so the slower of the two is what a step takes. A step reads its weights once,
however many rows it has: prompts and answers that share a step share the reading. Of an embedding that is
only gathered, tokens read their own rows. Everything here is plain arithmetic; `bench.streaming` measures how
near the runtime comes.
"""

from dataclasses import dataclass

PIECE_BYTES = 16 << 20
"""Of weights that are read and used together, at most: matrices are cut into pieces of so many rows."""
RING_PIECES = 6
"""Pieces that have room in the ring: one is in use, and the others are being read or wait."""


@dataclass(frozen=True)
class StreamedStep:
    """Milliseconds of a step by either wall, and the bytes that it reads from the disk."""

    bytes: int
    disk_ms: float
    compute_ms: float

    @property
    def ms(self) -> float:
        """What it takes: whichever of the two is slower, for they overlap."""
        return max(self.disk_ms, self.compute_ms)


def streamed_bytes(step_weights: int, resident: int) -> int:
    """Bytes that every step reads from the disk: of the `step_weights` that a step multiplies with, what is
    more than the `resident` bytes that the budget has room for (`room_for_weights`)."""
    return max(0, step_weights - max(0, resident))


def ring_bytes(largest_piece: int = PIECE_BYTES) -> int:
    """Bytes of the ring that pieces of up to `largest_piece` bytes pass through."""
    return RING_PIECES * largest_piece


def room_for_weights(budget: int, working: int, largest_piece: int = PIECE_BYTES) -> int:
    """Bytes of weights that stay in memory, of a `budget` from which cache and arena (`working`) and the ring
    are taken first; not below 0."""
    return max(0, budget - working - ring_bytes(largest_piece))


def streamed_step(streamed: int, compute_ms: float, disk_bytes_per_s: float) -> StreamedStep:
    """A step that reads `streamed` bytes at `disk_bytes_per_s` and takes `compute_ms` with all weights in
    memory, whether it decodes one token or has many rows."""
    return StreamedStep(streamed, 1e3 * streamed / disk_bytes_per_s, compute_ms)
