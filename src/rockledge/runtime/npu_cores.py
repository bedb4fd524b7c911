"""Which cores of an NPU work: a small product on core 0 alone, on each further one, then on all together.

Which sets of cores can work together depends on the driver. The vendor's starts one core, the first two or
all three (rknpu_job.c of 0.9.8). Mainline chooses the core of a job by itself, the one with the least to do,
and counts files by their latest job (drm_sched_pick_best, drm_sched_entity_select_rq). A job on each of three
files, in order, puts them on cores 0, 1 and 2; from then on the first n files stay on the first n cores. So
there only the first n cores can be used, and a file whose job failed is not tried again: it would land
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu.layout import INT8, SUMS_IN_ATOM, pack_cube, pack_kernels
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT, product_program
from rockledge.runtime.npu_device import CORES, TO_DEVICE, Binding, Buffer, Loaded, NpuDevice

_ROWS, _INPUTS, _COLUMNS = 4, 32, 32
_RUNS: Final = 3
"""What runs first in a fresh process, or after a reset, is sometimes not executed [H: ORK]."""
AWAKE_MS: Final = 2500
"""A device without a job for so long is proven again: the vendor's driver powers the cores off after 3 s [T],
and what runs first after that is sometimes not executed [H: ORK]."""
_FURTHER_RUNS: Final[Mapping[str, int]] = {"rknpu": 2, "rocket": 1}
_FIRST: Final = tuple(tuple(range(count)) for count in range(CORES, 0, -1))
_SETS: Final[Mapping[str, tuple[tuple[int, ...], ...]]] = {
    "rknpu": (*_FIRST, *((core,) for core in range(1, CORES))),
    "rocket": _FIRST,
}


@dataclass(frozen=True)
class Proof:
    """`cores` are in use from now on, `runs` is how many runs their product took.

    `failed`: why others are not.
    """

    cores: tuple[int, ...]
    runs: int
    failed: Mapping[int, str]

    def line(self) -> str | None:
        """A line for the user, or None when all cores work."""
        left = [core for core in range(CORES) if core not in self.cores]
        if not left:
            return None
        why, works = _reasons(self.failed), named(self.cores)
        return f"{named(left)} of the NPU cannot be used ({why}); it goes on with {works}"


def named(cores: Sequence[int]) -> str:
    """Such as "core 1" and "cores 0 and 2"."""
    numbers = ", ".join(map(str, cores))
    return f"core {numbers}" if len(cores) == 1 else f"cores {' and '.join(numbers.rsplit(', ', 1))}"


def prove(device: NpuDevice, timeout_ms: int = 2000, idle_ms: int = AWAKE_MS) -> Proof:
    """Finds the cores that work, uses those, and gives the device a small product on each as its probe.

    It runs again after every reset, and after `idle_ms` without a job.
    Its buffers stay for as long as the device is open. Raises NpuError when no core works.
    """
    driver = device.describe().driver
    products = _Products(device, timeout_ms)
    failed: dict[int, str] = {}
    for core in range(CORES):
        reason = products.wrong([core], _FURTHER_RUNS[driver] if core else _RUNS)
        if reason is not None:
            failed[core] = reason
    for cores in _SETS[driver]:
        if not failed.keys().isdisjoint(cores):
            continue
        reason = products.wrong(cores, _FURTHER_RUNS[driver])
        if reason is None:
            return Proof(cores, products.keep(cores, idle_ms), failed)
        failed[cores[-1]] = reason
    raise NpuError(f"no core of the NPU computes a small product correctly: {_reasons(failed)}")


class _Products:
    """The same small product for every core, with buffers of its own."""

    def __init__(self, device: NpuDevice, timeout_ms: int) -> None:
        a = np.arange(_ROWS * _INPUTS).reshape(_ROWS, _INPUTS).astype(np.int8)
        b = (np.arange(_COLUMNS * _INPUTS).reshape(_COLUMNS, _INPUTS) % 251 - 125).astype(np.int8)
        self._device, self._timeout_ms = device, timeout_ms
        self._right = pack_cube(a.astype(np.int32) @ b.astype(np.int32).T, SUMS_IN_ATOM)
        spaces = device.describe().spaces
        self._made = [self._make(a, b, core if spaces > 1 else 0) for core in range(CORES)]

    def wrong(self, cores: Sequence[int], runs: int) -> str | None:
        """Why the product stays wrong on these cores together, or None.

        Raises NpuError for a device that is gone.
        """
        self._device.use_cores(cores)
        try:
            self._device.attempt(*self._job(cores), self._timeout_ms, runs)
        except NpuError as error:
            if self._device.describe().failed:
                raise
            return str(error)
        return None

    def keep(self, cores: Sequence[int], idle_ms: int) -> int:
        """Makes it the device's probe on these cores; returns how many runs it took."""
        return self._device.probe(*self._job(cores), self._timeout_ms, idle_ms)

    def _job(self, cores: Sequence[int]) -> tuple[list[Loaded], list[tuple[Buffer, NDArray[Any]]]]:
        return [self._made[core][0] for core in cores], [(self._made[core][1], self._right) for core in cores]

    def _make(self, a: NDArray[np.int8], b: NDArray[np.int8], space: int) -> tuple[Loaded, Buffer]:
        device, chain = self._device, product_program(_ROWS, _INPUTS, _COLUMNS)
        words = device.allocate(chain.size_bytes + chain.size_bytes % 16, space)
        left, right = device.allocate(a.size, space), device.allocate(b.size, space)
        left.data[:] = pack_cube(a, INT8.atom).view(np.uint8)
        right.data[:] = pack_kernels(b, INT8).view(np.uint8)
        sums = device.allocate(self._right.nbytes, space)
        for buffer in (left, right):
            device.sync(buffer, TO_DEVICE)
        program = device.load(chain, words)
        device.bind(program, {INPUT: Binding(left), WEIGHT: Binding(right), OUTPUT: Binding(sums, True)})
        return program, sums


def _reasons(failed: Mapping[int, str]) -> str:
    return "; ".join(f"core {core}: {reason}" for core, reason in failed.items())
