"""Where the int8 weights of every block lie: in a slot of its own, or passing through a ring of slots.

Blocks run in the order of the program, every step the same. What is pinned is unpacked once; what is not is
unpacked every step, while the NPU works on the blocks before it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rockledge.errors import BudgetError
from rockledge.units import show_size

RING = 3
"""Slots of the ring: one for the block that runs, one for the next, and one to unpack ahead."""
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Slots:
    """`of_block[b]` is the slot of block b, `lane_bytes[s]` what a lane of slot s holds. The slots from
    `pinned` on are the ring."""

    of_block: tuple[int, ...]
    lane_bytes: tuple[int, ...]
    pinned: int

    @property
    def streamed(self) -> int:
        """Blocks that pass through the ring."""
        return sum(slot >= self.pinned for slot in self.of_block)


def plan_slots(blocks: Sequence[int], lanes: int, budget: int) -> Slots:
    """Slots for blocks of these bytes a lane, as many pinned as `budget` bytes allow, spread evenly.

    Raises BudgetError when not even the ring fits.
    """
    if lanes * sum(map(pages, blocks)) <= budget:
        return Slots(tuple(range(len(blocks))), tuple(map(pages, blocks)), len(blocks))
    most = len(blocks) - RING
    if most < 0 or _bytes(blocks, lanes, 0) > budget:
        least = lanes * sum(map(pages, blocks)) if most < 0 else _bytes(blocks, lanes, 0)
        raise BudgetError(
            f"the NPU's weight slots need {show_size(least)}, expected at most the "
            f"{show_size(budget)} that are left"
        )
    fitting = bisect_right(range(most + 1), budget, key=lambda count: _bytes(blocks, lanes, count)) - 1
    # The last block through the ring is followed by the next step's first: with whole rounds of the ring
    # they never want the same slot.
    # Which blocks are pinned changes with their number, so one less may take more.
    for count in range(fitting, -1, -1):
        if (len(blocks) - count) % RING == 0 and _bytes(blocks, lanes, count) <= budget:
            fitting = count
            break
    return _slots(blocks, fitting)


def pages(size: int) -> int:
    """`size` in whole pages: what a lane takes of a buffer, so that no two share a cache line."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def _is_pinned(block: int, pinned: int, blocks: int) -> bool:
    return (block + 1) * pinned // blocks > block * pinned // blocks


def _bytes(blocks: Sequence[int], lanes: int, pinned: int) -> int:
    return lanes * sum(_slots(blocks, pinned).lane_bytes)


def _slots(blocks: Sequence[int], pinned: int) -> Slots:
    of_block: list[int] = []
    own: list[int] = []
    through: list[int] = []
    for number, size in enumerate(blocks):
        if _is_pinned(number, pinned, len(blocks)):
            of_block.append(len(own))
            own.append(pages(size))
        else:
            of_block.append(pinned + len(through) % RING)
            through.append(pages(size))
    ring = (max(through),) * min(RING, len(through)) if through else ()
    return Slots(tuple(of_block), (*own, *ring), pinned)
