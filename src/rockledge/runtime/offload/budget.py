"""How much memory the NPU's buffers may take on this machine, and the largest steps that fit into it."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rockledge.board.boards import Board, board_with
from rockledge.board.memory import DecoderShape, plan_memory
from rockledge.errors import BudgetError
from rockledge.npu.programs.steps import STEP_ROWS, step_rows
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.plan import PrefillPlan, plan_prefill


def this_board() -> Board:
    """The board with this machine's memory."""
    return board_with(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the system can still give to programs; None where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo.read_text(), re.MULTILINE)
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
) -> PrefillPlan:
    """The plan with the largest steps for which there is memory: `budget` says how much for steps of up to
    that many tokens. Raises BudgetError when there is too little for the smallest, and NpuError."""
    sizes = STEP_ROWS[: STEP_ROWS.index(step_rows(min(context, STEP_ROWS[-1]))) + 1]
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
