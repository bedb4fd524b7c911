"""What a faulty core does to memory while it runs a chain: no effect of a program, wrong sums, old output."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge_npu_lab.emulation.memory import Buffer, Memory, Window
from rockledge_npu_lab.virtual.device_faults import Fault


class LeftByJobs:
    """The last value that jobs wrote to every byte of every buffer."""

    def __init__(self) -> None:
        self._arrays: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def over(self, memory: Memory) -> tuple[Memory, Memory]:
        """(values, known): `known` is 1 for each byte that a job wrote."""
        for buffer in memory.buffers:
            if buffer.name not in self._arrays:
                self._arrays[buffer.name] = (np.zeros_like(buffer.data), np.zeros_like(buffer.data))
        values, known = (
            Memory(Buffer(b.name, b.address, self._arrays[b.name][which]) for b in memory.buffers)
            for which in (0, 1)
        )
        return values, known


class DamagedMemory(Memory):
    """The memory of one core's job with the faults that reach it.

    `tasks`: how many programs each kick of the job has. Every program writes its output once, and the PC's
    fetches are the only reads of 64-bit words, so they show which program runs.
    """

    def __init__(
        self, memory: Memory, faults: Sequence[Fault], tasks: Sequence[int], left: LeftByJobs | None
    ) -> None:
        super().__init__(memory.buffers)
        programs = list(accumulate(tasks))[-1]
        self._skipped = {_number(f.program, programs) for f in faults if f.kind == "skipped_program"}
        self._wrong_rows = [fault for fault in faults if fault.kind == "wrong_rows"]
        self._flipped = [
            (_number(fault.program, programs), fault) for fault in faults if fault.kind == "flipped_bits"
        ]
        self._stale = any(fault.kind == "stale_output" for fault in faults)
        self._left = None if left is None else left.over(memory)
        self._program = 0

    def read(self, wanted: Window) -> NDArray[Any]:
        """As `Memory.read`; counts programs."""
        if wanted.dtype.itemsize == 8:
            self._program += 1
        return super().read(wanted)

    def write(self, wanted: Window, values: NDArray[Any]) -> None:
        """As `Memory.write`, with the faults applied."""
        if self._program in self._skipped:
            return
        for fault in self._wrong_rows:
            if self._program % fault.every == 0:
                values = values.copy()
                values[..., -fault.rows :, :] += values.dtype.type(1)  # [.., pixels, channels of an atom]
        for program, fault in self._flipped:
            if program == self._program:
                values = _with_flipped_bits(values, fault)
        if self._left is None:
            super().write(wanted, values)
            return
        left, known = self._left
        each_byte = Window(
            wanted.base, (*wanted.shape, wanted.dtype.itemsize), (*wanted.strides, 1), np.dtype(np.uint8)
        )
        if self._stale:
            old = known.read(each_byte).all(axis=-1)
            super().write(wanted, np.where(old, left.read(wanted), super().read(wanted)))
            return
        super().write(wanted, values)
        left.write(wanted, values)
        known.write(each_byte, np.ones(each_byte.shape, np.uint8))


def _with_flipped_bits(values: NDArray[Any], fault: Fault) -> NDArray[Any]:
    """`values` [.., atoms, pixels, channels of an atom] with the fault in the first pixel (row of a matmul).

    The two columns depend on the fault's numbers alone.
    """
    values = values.copy()
    row = values[..., 0, :]  # of any strides
    random = np.random.default_rng((fault.at, fault.bit))
    for column in random.choice(row.size, 2, replace=False):
        row.flat[column] ^= row.dtype.type(1 << fault.bit if fault.bit < 31 else -1 << 31)
    return values


def _number(program: int, programs: int) -> int:
    return programs if program < 0 else min(program, programs)
