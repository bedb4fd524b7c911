"""Operators of several programs on one emulated core: buffers placed, the chain kicked, the output taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.npu.programs.operator import UNTOUCHED, Runnable
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH, WEIGHT
from rockledge.npu.stream import PROGRAM_ROLE
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.faults import Flag
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.options import DEFAULT, Options
from rockledge_npu_lab.verify.emulated import place

Array = npt.NDArray[Any]


def run_operator(
    operator: Runnable, arrays: Mapping[str, Array], options: Options = DEFAULT
) -> tuple[Array, tuple[Flag, ...]]:
    """(output [rows, columns], what was suspicious) of an operator on a fresh core.

    Raises NpuError for inputs that the operator refuses and for what the hardware would hang on.
    """
    buffers: dict[str, npt.NDArray[np.uint8]] = {
        INPUT: operator.packed(arrays),
        WEIGHT: operator.weights,
        SCRATCH: np.full(operator.sizes[SCRATCH], UNTOUCHED, np.uint8),
        OUTPUT: np.full(operator.sizes[OUTPUT], UNTOUCHED, np.uint8),
        PROGRAM_ROLE: np.zeros(operator.program.size_bytes, np.uint8),
    }
    addresses = place({role: data.size for role, data in buffers.items()})
    buffers[PROGRAM_ROLE][:] = operator.program.at(addresses).view(np.uint8)
    core = Core(Memory.of({role: (addresses[role], data) for role, data in buffers.items()}), options)
    done = core.run(operator.program, addresses)
    return operator.taken(buffers), done.flags
