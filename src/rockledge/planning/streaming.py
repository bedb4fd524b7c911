"""How fast a model that does not fit would be with the rest of its weights read from a disk in every step.

Nothing is computed here: the bytes and the two walls are `board/streaming.py`, computing is that of a board
with enough memory. Prompts are the CPU's, in the steps that it takes. Everything is modelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from rockledge.board.facts import End
from rockledge.board.memory import CPU_STEP_ROWS
from rockledge.board.streaming import ring_bytes, room_for_weights, streamed_bytes, streamed_step
from rockledge.planning.fit import WIDTHS
from rockledge.planning.plan import DEFAULT_BITS, Plan
from rockledge.planning.ranges import Range, over
from rockledge.planning.speed import Speed

DISKS: Final[Mapping[str, str]] = {
    "NVMe": "disk_read_bandwidth_nvme",
    "eMMC": "disk_read_bandwidth_emmc",
    "SD card": "disk_read_bandwidth_sd",
}
"""The fact of a board behind each; a board has those that it can have."""
_WIDTH: Final = max(width for width in WIDTHS if width <= DEFAULT_BITS)


@dataclass(frozen=True)
class Streamed:
    """With all weights at `bits`: `budget` bytes of memory for everything, of which `resident` hold weights
    and `ring` those on their way; bytes that every step `read`s. Tokens/s by disk: `decode` of each stream,
    empty where the model writes nothing, and `prefill`."""

    bits: int
    budget: int
    resident: int
    ring: int
    read: int
    decode: Mapping[str, Range]
    prefill: Mapping[str, Range]


def streamed(plan: Plan) -> Streamed | None:
    """For a plan that does not fit; None where cache and arena alone leave no room for it, and on boards
    whose disks are not known."""
    facts = plan.board.facts
    disks = {name: fact for name, fact in DISKS.items() if fact in facts}
    parts = plan.room
    working = parts.cache + parts.arena
    if not disks or parts.available < working + ring_bytes():
        return None
    board = plan.board.without_npu()
    speed = Speed(board, plan.config, _WIDTH, plan.tokens)
    resident = room_for_weights(parts.available, working)
    read = streamed_bytes(speed.read_bytes, resident)

    def decode(fact: str, end: End) -> float:
        step = speed.decoding(plan.context, plan.streams, end)
        return 1e3 / streamed_step(read, step.ms_per_token, board.at(end).value(fact)).ms

    def prefill(fact: str, end: End) -> float:
        steps = -(-plan.prompt_tokens // CPU_STEP_ROWS)
        each = 1e3 * speed.prompt(plan.prompt_tokens, end=end).seconds / steps
        ms = steps * streamed_step(read, each, board.at(end).value(fact)).ms
        return 1e3 * plan.prompt_tokens / ms

    return Streamed(
        bits=_WIDTH,
        budget=parts.available,
        resident=resident,
        ring=ring_bytes(),
        read=read,
        decode={n: over(partial(decode, fact)) for n, fact in disks.items()} if plan.writes else {},
        prefill={n: over(partial(prefill, fact)) for n, fact in disks.items()},
    )
