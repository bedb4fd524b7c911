"""Cache maintenance around the NPU: which bytes are handed over, in how many calls, and what that takes.

CPU and NPU share memory but not caches [T]: what the CPU wrote is cleaned before the NPU reads it, what the
NPU wrote is invalidated before the CPU does. The vendor's driver takes ranges, so it is asked for the bytes
that a step uses; mainline's takes whole buffers. Seconds are modelled:

    a core's syncs = bytes / what a core cleans or invalidates a second + calls x what a call costs
"""

import math
from dataclasses import dataclass

from rockledge.board.boards import Board

MARK_BYTES = 4
PAGE_BYTES = 4096
TASK_BYTES = 40
"""Of the vendor's task list, for each program."""
PIECE_BYTES = 4 << 20
"""What one call hands over at most of sums and weights, so that all threads have a part (kSyncPiece of
native/npu/plan.cpp)."""


@dataclass(frozen=True)
class Sync:
    """Bytes cleaned or invalidated, in `calls` of the driver."""

    bytes: float = 0.0
    calls: float = 0.0

    def __add__(self, other: "Sync") -> "Sync":
        return Sync(self.bytes + other.bytes, self.calls + other.calls)

    def times(self, factor: float) -> "Sync":
        """`factor` times as much."""
        return Sync(factor * self.bytes, factor * self.calls)


@dataclass(frozen=True)
class Syncs:
    """A linear's: its `input` once, with the NPU idle; for each block what is done `between` two, with the
    NPU idle, and by one core beside it (`words`: of programs, and the marks in results); the block's
    `outputs` and, where it is unpacked, its `weights`, by all cores."""

    input: Sync = Sync()
    between: Sync = Sync()
    words: Sync = Sync()
    outputs: Sync = Sync()
    weights: Sync = Sync()

    def linear(self, blocks: int, streamed: float) -> Sync:
        """All of a linear in `blocks`, of which the share `streamed` is unpacked."""
        each = self.between + self.words + self.outputs + self.weights.times(streamed)
        return self.input + each.times(blocks)


@dataclass(frozen=True)
class LaneBytes:
    """What a lane of a block has, in bytes: `input` and a plane of sums (`plane`, of which there are `sums`)
    of the rows that a step uses, `weights`, `words` of its programs; `programs`, and `marks` in their
    results. `input_buffer`, `output_buffer`: all of the buffers that those lie in."""

    input: int
    plane: int
    weights: int
    words: int
    sums: int
    programs: int
    marks: int
    input_buffer: int
    output_buffer: int


def ranged_syncs(lane: LaneBytes, lanes: int) -> Syncs:
    """With the vendor's driver: one input for all lanes, planes of sums one by one, every mark by itself."""
    marks = Sync(lanes * lane.marks * MARK_BYTES, lanes * lane.marks)
    planes = lanes * lane.sums
    return Syncs(
        input=Sync(lane.input, 1),
        between=marks + Sync(lanes * lane.programs * TASK_BYTES, 1),
        words=marks + Sync(lanes * lane.words, lanes),
        outputs=Sync(planes * lane.plane, planes * math.ceil(lane.plane / PIECE_BYTES)),
        weights=Sync(lanes * lane.weights, lanes * math.ceil(lane.weights / PIECE_BYTES)),
    )


def whole_syncs(lane: LaneBytes, lanes: int) -> Syncs:
    """With mainline's: an input for every lane; a job's end is waited for at a page, then the output is
    invalidated, because the marks lie in it, and cleaned before the next job, because they are written."""
    output = _pages(lane.output_buffer)
    return Syncs(
        input=Sync(lanes * _pages(lane.input_buffer), lanes),
        between=Sync(lanes * (PAGE_BYTES + output), 2 * lanes),
        words=Sync(lanes * (_pages(lane.words) + output), 2 * lanes),
        weights=Sync(lanes * _pages(lane.weights), lanes),
    )


def _pages(size: int) -> int:
    return math.ceil(size / PAGE_BYTES) * PAGE_BYTES


def sync_seconds(board: Board, sync: Sync, cores: float = 1.0) -> float:
    """Modelled seconds of `cores` of the CPU together."""
    each = sync.bytes / board.value("cpu_cache_sync_bandwidth")
    return (each + sync.calls * board.value("npu_sync_call_seconds")) / cores
