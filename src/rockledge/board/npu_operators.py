"""The time of softmax and norms by themselves, on the NPU and on the CPU: modelled, from published runs.

    softmax on the NPU = elements x published seconds an element + cache maintenance
    a norm on the NPU  = submits x dispatch + its floats over the bus + cache maintenance
    softmax on the CPU = elements x cycles that scale, exponentiate and round a score / four big cores
    a norm on the CPU  = elements x its cycles / four big cores

On the NPU both read and write fp16 and are handed over before and after.
"""

import math

from rockledge.board.boards import Board
from rockledge.board.npu_syncs import Sync, sync_seconds
from rockledge.board.prefill import FLOAT_BYTES, cpu_seconds

HALF_BYTES = 2


def npu_softmax_seconds(board: Board, elements: float) -> float:
    """Of `elements` scores in all rows together."""
    return elements * board.value("npu_softmax_seconds") + _handed_over(board, elements)


def cpu_softmax_seconds(board: Board, elements: float) -> float:
    """The same by the loops of attention, from int32 scores in the caches to 14-bit weights."""
    return cpu_seconds(board, elements * board.value("cpu_attention_cycles_per_score"), 0.0)


def npu_norm_seconds(board: Board, rows: int, width: int) -> float:
    """An RMSNorm of [rows, width]."""
    elements = rows * width
    submits = math.ceil(elements / board.value("npu_norm_elements"))
    floats = 2 * HALF_BYTES * elements / board.value("npu_bus_bandwidth")
    return submits * board.value("npu_submit_seconds") + floats + _handed_over(board, elements)


def cpu_norm_seconds(board: Board, rows: int, width: int) -> float:
    """The same on the CPU, floats read and written."""
    elements = rows * width
    return cpu_seconds(board, elements * board.value("cpu_norm_cycles"), 2 * FLOAT_BYTES * elements)


def _handed_over(board: Board, elements: float) -> float:
    """Halves cleaned before and invalidated after, by all cores."""
    return sync_seconds(board, Sync(2 * HALF_BYTES * elements, 2), board.value("cpu_cores"))
