"""Which buffers may share memory: slots planned from the first write and the last read of every value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Access(Protocol):
    """What the plan looks at in an operation: the numbers of the buffers it reads and writes."""

    @property
    def inputs(self) -> tuple[int, ...]: ...

    @property
    def outputs(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class ArenaPlan:
    """`slots[b]` is the slot of buffer b; `row_bytes[s]` what one row of a step takes in slot s."""

    slots: tuple[int, ...]
    row_bytes: tuple[int, ...]


def live_ranges(operations: Sequence[Access], buffers: int) -> list[list[tuple[int, int]]]:
    """For every buffer its ranges (first operation, last operation) in which it holds a value still needed.

    A write begins a new range unless the operation also reads the buffer, or nothing has read the value
    written before (then two operations fill different columns of it).
    """
    ranges: list[list[tuple[int, int]]] = [[] for _ in range(buffers)]
    unread = [False] * buffers
    for number, operation in enumerate(operations):
        for b in operation.inputs:
            if not ranges[b]:
                raise ValueError(f"operation {number} reads buffer {b} before anything wrote it")
            ranges[b][-1] = (ranges[b][-1][0], number)
            unread[b] = False
        for b in operation.outputs:
            if ranges[b] and (unread[b] or b in operation.inputs):
                ranges[b][-1] = (ranges[b][-1][0], number)
            else:
                ranges[b].append((number, number))
            unread[b] = True
    return ranges


def plan_arena(operations: Sequence[Access], row_bytes: Sequence[int]) -> ArenaPlan:
    """Slots for buffers of `row_bytes[b]` bytes a row: the largest first, each into the smallest free slot.

    Buffers share a slot only when no operation needs both; inputs and outputs of one operation count as both.
    """
    ranges = live_ranges(operations, len(row_bytes))
    slots = [-1] * len(row_bytes)
    taken: list[list[tuple[int, int]]] = []
    sizes: list[int] = []
    for b in sorted(range(len(row_bytes)), key=lambda b: (-row_bytes[b], b)):
        free = [s for s in range(len(taken)) if not _overlap(taken[s], ranges[b])]
        if free:
            # Sizes fall, so every free slot is large enough; the smallest keeps the large ones for others.
            slot = min(free, key=lambda s: (sizes[s], s))
        else:
            slot = len(taken)
            taken.append([])
            sizes.append(row_bytes[b])
        slots[b] = slot
        taken[slot] = taken[slot] + ranges[b]
    return ArenaPlan(tuple(slots), tuple(sizes))


def _overlap(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> bool:
    return any(a <= d and c <= b for a, b in first for c, d in second)
