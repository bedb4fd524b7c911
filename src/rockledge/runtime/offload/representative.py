"""Linears that stand for those of models, to try a device that has none: wide, deep, and with two planes."""

from typing import Final

from rockledge.board.boards import Board
from rockledge.board.time import stored_bytes
from rockledge.runtime.npu_device import NpuDevice
from rockledge.runtime.offload.linears import Linear
from rockledge.runtime.offload.load import load
from rockledge.runtime.offload.plan import plan_prefill
from rockledge.runtime.offload.trial import Trials, try_programs

_SHAPES: Final = ((1536, 576, 1), (576, 4096, 1), (960, 1024, 2))  # outputs, inputs, planes
_STEPS: Final = (64, 128)
_BUDGET: Final = 256 << 20
_BITS: Final = 4

REPRESENTATIVE: Final = tuple(
    Linear(op, n, k, planes, {_BITS: n * k}, stored_bytes(_BITS, n, k))
    for op, (n, k, planes) in enumerate(_SHAPES)
)


def try_representative(device: NpuDevice, board: Board, timeout_ms: int) -> Trials:
    """Their programs on an open device that was proven. Raises NpuError as `try_programs` does."""
    about = device.describe()
    plan = plan_prefill(
        REPRESENTATIVE, lanes=about.cores, spaces=about.spaces, steps=_STEPS, board=board, budget=_BUDGET
    )
    return try_programs(device, plan, load(device, plan), board, timeout_ms)
