"""Launches of a matmul (`npu/programs/matmul.py`) on an open NPU.

On a device of several address spaces every core has buffers of its own: what a launch calls input or weight
is then there once for each core, and the parts that a core writes are taken from its own output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from rockledge.npu.programs.matmul import Launch
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH, WEIGHT
from rockledge.npu.stream import Program
from rockledge.runtime.npu_device import TO_DEVICE, Binding, Buffer, Description, Loaded, NpuDevice

_WRITTEN = (OUTPUT, SCRATCH)
_UNTOUCHED = np.uint8(0xA5)  # what an output holds before a job: nothing that looks like a result


class LaunchRunner:
    """`run` is what `Matmul.multiply` wants as its device; buffers live for one launch."""

    def __init__(self, device: NpuDevice, timeout_ms: int = 2000) -> None:
        self._device = device
        self._about = device.describe()
        self._timeout_ms = timeout_ms

    def run(self, launch: Launch, a: NDArray[np.int8], b: NDArray[np.int8]) -> NDArray[np.int32]:
        """The output int32 of a launch with these inputs and weights. Raises NpuError as `wait` does."""
        with ExitStack() as stack:
            chains = [chain for chain in launch.chains if chain is not None]
            spaces = _spaces(self._about, len(chains))
            homes = {}
            for space in dict.fromkeys(spaces):
                homes[space] = {
                    role: stack.enter_context(self._buffer(max(size, 1), space))
                    for role, size in launch.sizes.items()
                }
                self._fill(homes[space], a, b)
            programs = [
                stack.enter_context(self._program(chain, homes[space], space))
                for chain, space in zip(chains, spaces, strict=True)
            ]
            self._device.submit(programs, self._timeout_ms)
            self._device.wait()
            return _merged([home[OUTPUT].data for home in homes.values()]).view(np.int32)

    def _fill(self, home: dict[str, Buffer], a: NDArray[np.int8], b: NDArray[np.int8]) -> None:
        home[INPUT].data[: a.size] = a.view(np.uint8)
        home[WEIGHT].data[: b.size] = b.view(np.uint8)
        for role in _WRITTEN:
            home[role].data[:] = _UNTOUCHED
        for buffer in home.values():
            self._device.sync(buffer, TO_DEVICE)

    @contextmanager
    def _buffer(self, size: int, space: int) -> Iterator[Buffer]:
        buffer = self._device.allocate(size, space)
        try:
            yield buffer
        finally:
            self._device.release(buffer)

    @contextmanager
    def _program(self, chain: Program, home: dict[str, Buffer], space: int) -> Iterator[Loaded]:
        with self._buffer(chain.size_bytes + chain.size_bytes % 16, space) as words:
            program = self._device.load(chain, words)
            try:
                bindings = {role: Binding(buffer, role in _WRITTEN) for role, buffer in home.items()}
                self._device.bind(program, bindings)
                yield program
            finally:
                self._device.unload(program)


def _spaces(about: Description, count: int) -> list[int]:
    """The address space of each of `count` cores."""
    return list(range(count)) if about.spaces > 1 else [0] * count


def _merged(outputs: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One output of several that were all `_UNTOUCHED` before, and of which each has some parts written."""
    merged = outputs[0].copy()
    for other in outputs[1:]:
        # Sums of several cores never meet; a word that is untouched here was written there.
        mine = merged.view(np.int32)
        theirs = other.view(np.int32)
        untouched = mine == np.full(4, _UNTOUCHED).view(np.int32)[0]
        mine[untouched] = theirs[untouched]
    return merged
