"""Operators (`npu/programs/operator.py`) on an open NPU: one core, one submit.

Their results are fp16, for which no value is impossible as a mark; every result is looked at instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from rockledge.npu.programs.operator import UNTOUCHED, Runnable
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH, WEIGHT
from rockledge.runtime.npu_device import TO_DEVICE, Binding, NpuDevice

Array = NDArray[Any]
_WRITTEN = (OUTPUT, SCRATCH)


def run_operator(
    device: NpuDevice, operator: Runnable, arrays: Mapping[str, Array], timeout_ms: int = 2000
) -> Array:
    """The output [rows, columns]. Buffers live for this call.

    Raises NpuError for inputs that the operator refuses, as `NpuDevice.wait` does, and when a program did not
    run although success was reported.
    """
    filled = {INPUT: operator.packed(arrays), WEIGHT: operator.weights}
    with ExitStack() as stack:
        home = {}
        for role, size in operator.sizes.items():
            home[role] = device.allocate(max(size, 1))
            stack.callback(device.release, home[role])
            home[role].data[:] = UNTOUCHED if role in _WRITTEN else 0
            if role in filled:
                home[role].data[:size] = filled[role]
            device.sync(home[role], TO_DEVICE)
        words = device.allocate(operator.program.size_bytes + operator.program.size_bytes % 16)
        stack.callback(device.release, words)
        program = device.load(operator.program, words, marked=False)
        stack.callback(device.unload, program)
        device.bind(program, {role: Binding(buffer, role in _WRITTEN) for role, buffer in home.items()})
        device.submit([program], timeout_ms)
        device.wait()
        return operator.taken({role: home[role].data for role in _WRITTEN}).copy()
