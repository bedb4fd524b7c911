"""Several cores in one submit: any order must give the same, so they may not share memory that one writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu import isa
from rockledge_npu_lab.emulation.core import Completion, Core
from rockledge_npu_lab.emulation.memory import Memory, Window


@dataclass(frozen=True)
class Job:
    """One core's share of a submit: what `Core.kick` takes."""

    address: int
    body_words: int
    tasks: int = 1
    int_mask: int = isa.INT_DPU


class TracedMemory(Memory):
    """Memory that remembers which bytes of each buffer were read and written, as marks of 0 and 1."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory.buffers)
        self.reads = _marks(memory)
        self.writes = _marks(memory)

    def read(self, wanted: Window) -> NDArray[Any]:
        """As `Memory.read`, marked."""
        values = super().read(wanted)
        _mark(self.reads, wanted)
        return values

    def write(self, wanted: Window, values: NDArray[Any]) -> None:
        """As `Memory.write`, marked."""
        super().write(wanted, values)
        _mark(self.writes, wanted)


def submit(cores: Sequence[Core], jobs: Mapping[int, Job]) -> dict[int, Completion]:
    """Runs one job on each core that `jobs` names (core index -> job), in the order of `Options.core_order`.

    Raises NpuError when the jobs depend on each other: one writes a byte that another reads or writes.
    """
    by_index = {core.index: core for core in cores}
    missing = sorted(set(jobs) - set(by_index))
    if missing or not jobs:
        raise NpuError(f"a submit names cores {sorted(jobs)}, expected some of {sorted(by_index)}")
    order = [index for index in by_index[min(jobs)].options.core_order if index in jobs]
    done: dict[int, Completion] = {}
    traces: dict[int, TracedMemory] = {}
    for index in order:
        core, job = by_index[index], jobs[index]
        memory = core.memory
        traces[index] = core.memory = TracedMemory(memory)
        try:
            done[index] = core.kick(job.address, job.body_words, job.tasks, job.int_mask)
        finally:
            core.memory = memory
    for one, other in combinations(order, 2):
        _independent(one, traces[one], other, traces[other])
    return done


def _independent(one: int, trace: TracedMemory, other: int, other_trace: TracedMemory) -> None:
    for mine, mine_read, theirs, theirs_read in zip(
        trace.writes.buffers,
        trace.reads.buffers,
        other_trace.writes.buffers,
        other_trace.reads.buffers,
        strict=True,
    ):
        shared = (mine.data & (theirs.data | theirs_read.data)) | (theirs.data & mine_read.data)
        if shared.any():
            address = mine.address + int(np.argmax(shared))
            raise NpuError(
                f"cores {one} and {other} of a submit share {mine.name} at {address:#x}, where one writes; "
                "their order is not known, give them separate memory"
            )


def _marks(memory: Memory) -> Memory:
    return Memory(replace(buffer, data=np.zeros_like(buffer.data)) for buffer in memory.buffers)


def _mark(marks: Memory, wanted: Window) -> None:
    as_bytes = Window(
        wanted.base,
        (*wanted.shape, wanted.dtype.itemsize),
        (*wanted.strides, 1),
        np.dtype(np.uint8),
    )
    marks.write(as_bytes, np.ones(as_bytes.shape, np.uint8))
