"""Launches on the emulator: places buffers and programs in device memory, and kicks the cores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.board.boards import NPU_CORES
from rockledge.npu.programs.matmul import Launch
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH, WEIGHT
from rockledge.npu.stream import PROGRAM_ROLE
from rockledge_npu_lab.emulation.core import Completion, Core
from rockledge_npu_lab.emulation.faults import Flag
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.options import DEFAULT, Options
from rockledge_npu_lab.emulation.submit import Job, submit

PAGE: Final = 4096
FIRST_ADDRESS: Final = 0x0010_0000
UNTOUCHED: Final = 0xA5  # every byte of results before a kick: what no program writes stays visible


class EmulatedNpu:
    """All cores of the chip, whose registers outlive launches. `flags` collects what was suspicious.

    `run` is what `Matmul.multiply` takes as its device. `traced` also checks that cores share no byte that
    one of them writes, at five times the time.
    """

    def __init__(self, options: Options = DEFAULT, *, traced: bool = False) -> None:
        self.options = options
        self._traced = traced
        self.flags: list[Flag] = []
        self.macs = 0
        self._cores = [Core(Memory([]), options, index) for index in range(NPU_CORES)]

    def run(self, launch: Launch, a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
        """The output buffer int32 of one launch with these input and weight buffers.

        Cores run one after another in the order of the options. Raises NpuError for what the hardware would
        hang on or refuse, and when traced cores share memory.
        """
        arrays: dict[str, npt.NDArray[np.uint8]] = {
            INPUT: a.view(np.uint8),
            WEIGHT: b.view(np.uint8),
            OUTPUT: np.full(launch.sizes[OUTPUT], UNTOUCHED, np.uint8),
            SCRATCH: np.full(launch.sizes[SCRATCH], UNTOUCHED, np.uint8),
        }
        for core, chain in enumerate(launch.chains):
            if chain is not None:
                arrays[_program_name(core)] = np.zeros(chain.size_bytes, np.uint8)
        addresses = place({name: array.size for name, array in arrays.items()})
        for core, chain in enumerate(launch.chains):
            if chain is not None:
                roles = {**addresses, PROGRAM_ROLE: addresses[_program_name(core)]}
                arrays[_program_name(core)][:] = chain.at(roles).view(np.uint8)
        memory = Memory.of({name: (addresses[name], array) for name, array in arrays.items()})
        jobs = {}
        for core, chain in enumerate(launch.chains):
            if chain is not None:
                self._cores[core].memory = memory
                bodies = chain.body_words
                jobs[core] = Job(addresses[_program_name(core)], bodies[0], tasks=len(bodies))
        for done in self._submit(jobs):
            self.flags += done.flags
            self.macs += done.macs
        return arrays[OUTPUT].view(np.int32)

    def _submit(self, jobs: Mapping[int, Job]) -> Iterable[Completion]:
        if self._traced:
            return submit(self._cores, jobs).values()
        order = [core for core in self.options.core_order if core in jobs]
        return [
            self._cores[i].kick(jobs[i].address, jobs[i].body_words, jobs[i].tasks, jobs[i].int_mask)
            for i in order
        ]


def place(sizes: Mapping[str, int]) -> dict[str, int]:
    """Addresses for buffers of these sizes in bytes, one after the other on pages, from 1 MiB up."""
    addresses, free = {}, FIRST_ADDRESS
    for name, size in sizes.items():
        addresses[name] = free
        free += -(-size // PAGE) * PAGE + PAGE
    return addresses


def run_launch(launch: Launch, a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """One launch on a fresh emulated NPU with the default options."""
    return EmulatedNpu().run(launch, a, b)


def _program_name(core: int) -> str:
    return f"{PROGRAM_ROLE} {core}"
