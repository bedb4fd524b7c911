"""How much memory the NPU's buffers may take on this machine, and the largest steps that fit into it."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rockledge.board.boards import PROGRAMMED, Board, board_with, find_chip
from rockledge.board.memory import DecoderShape, plan_memory
from rockledge.errors import BudgetError, NpuError
from rockledge.npu.programs.steps import STEP_ROWS, step_rows
from rockledge.runtime.npu_system import compatible
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import PrefillPlan, plan_prefill

_OTHER_CHIPS: Final = "rockchip,rk"
"""Device trees name the chips of the RK3588's maker so: many have an NPU, each with registers of its own."""


def this_board(root: Path = Path("/")) -> Board:
    """The board of this machine, by its device tree below `root` and its memory.

    Where the device tree names no chip with an NPU, only the virtual NPU can be here, and that is the one
    that register programs are for. NpuError for a chip whose NPU needs other programs.
    """
    names = compatible(root)
    chip = find_chip(names)
    if chip is not None and chip.refused:
        raise NpuError(f"this is an {chip.title}, where the NPU is not used: {chip.refused}")
    if chip is None and any(name.startswith(_OTHER_CHIPS) for name in names):
        raise NpuError(
            f"this is a {names[-1]}, expected an {PROGRAMMED.chip.title}; an NPU of another chip needs other "
            "programs"
        )
    if chip is None or "npu_cores" not in chip.facts:
        chip = PROGRAMMED.chip
    return board_with(chip, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the system can still give to programs; None where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s*([0-9]{1,15}) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def npu_budget(
    board: Board,
    shape: DecoderShape,
    *,
    context: int,
    rows: int,
    weights: int,
    others: int,
    memory: int | None,
    free: int | None,
) -> int:
    """Bytes for the NPU next to everything else: what the board's memory plan has for it less what it leaves
    free, what `memory` leaves of the user's limit, and what is `free` now; 0 or more.

    `others`: bytes of weights, arena and cache together. Raises BudgetError where the plan does not fit.
    """
    planned = plan_memory(board, shape, context, weights_bytes=weights, step_rows=rows).npu_buffers_bytes
    least = int(board.value("npu_buffers_least"))
    most = int(board.value("npu_buffers_most"))
    # Only a plan that memory limits is made smaller: where there is enough, there is also some to spare.
    usable = planned if planned >= most else max(least, planned - int(board.value("npu_buffers_spare")))
    left = [limit - others for limit in (memory, free) if limit is not None]
    return max(0, min(usable, *left, most) if left else min(usable, most))


def largest_plan(
    linears: Sequence[Linear],
    *,
    lanes: int,
    spaces: int,
    board: Board,
    context: int,
    budget: Callable[[int], int],
    sizes: Sequence[int] = STEP_ROWS,
) -> PrefillPlan:
    """The plan with the largest steps, of `sizes`, for which there is memory: `budget` says how much for
    steps of up to that many tokens. Raises BudgetError when there is too little for the smallest, and
    NpuError."""
    largest = step_rows(min(context, STEP_ROWS[-1]))
    sizes = [size for size in sizes if size <= largest] or [largest]
    for count in range(len(sizes), 0, -1):
        try:
            return plan_prefill(
                linears,
                lanes=lanes,
                spaces=spaces,
                steps=sizes[:count],
                board=board,
                budget=budget(sizes[count - 1]),
            )
        except BudgetError as error:
            refusal = error
    raise refusal
