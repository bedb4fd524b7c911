"""What the NPU takes, through its driver: a job that hardly computes, one that does, and cache maintenance.

Only drivers that are not known to hang boards are tried. What is computed is not looked at here: `npu info`
and the engine do that.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rockledge.board.facts import UNITS
from rockledge.board.facts_file import Npu
from rockledge.board_calibration.spread import spread_of
from rockledge.errors import NpuError
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, WEIGHT, product_program
from rockledge.npu.virtual_npu import ADDRESS_VARIABLE
from rockledge.runtime.npu_cores import prove
from rockledge.runtime.npu_device import TO_DEVICE, Binding, Buffer, Loaded, NpuDevice
from rockledge.runtime.offload.driver_versions import known_problem

SMALL: Final = (4, 32, 32)
LARGE: Final = (192, 1024, 1024)
"""(rows, inputs, columns): one that takes as good as nothing, and one in which products bind, not bytes: they
take 196 us of a core at 1 GHz, and the bytes 163 us at the published rates."""
EMULATED: Final = (32, 256, 64)
"""In place of the large one where an emulator computes it."""
SYNC_BYTES: Final = (4096, 4 << 20)
_PROBE_MS, _JOB_MS = 500, 2000


@dataclass(frozen=True)
class NpuTimes:
    """Seconds of repeats: of `small` and `large` jobs from submit to the end of the wait, and of handing
    `SYNC_BYTES` to the device in one call. `macs` of the large one; `hz` where driver or system say it."""

    driver: str
    version: str
    cores: int
    virtual: bool
    hz: float | None
    macs: int
    small: tuple[float, ...]
    large: tuple[float, ...]
    syncs: Mapping[int, tuple[float, ...]]


def npu_times(repeats: int, system_hz: float | None) -> NpuTimes | str:
    """Measured on the NPU of this machine, or why there is nothing to measure. `system_hz`: the clock that
    the system states."""
    virtual = bool(os.environ.get(ADDRESS_VARIABLE))
    rows, inputs, columns = large = EMULATED if virtual else LARGE
    try:
        with NpuDevice() as device:
            about = device.describe()
            reason = known_problem(about)
            if reason is not None:
                return reason
            prove(device, _PROBE_MS)
            with _product(device, SMALL) as small, _product(device, large) as other:
                jobs = {SMALL: small, large: other}
                found: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in jobs}
                for _ in range(repeats + 1):
                    for shape, job in jobs.items():
                        found[shape].append(_seconds(lambda job=job: _run(device, job)))  # type: ignore[misc]
            syncs = {size: _syncs(device, size, repeats) for size in SYNC_BYTES}
            about = device.describe()
    except NpuError as error:
        return str(error)
    return NpuTimes(
        driver=about.driver,
        version=".".join(map(str, about.version)),
        cores=about.cores,
        virtual=virtual,
        hz=about.clock_hz or system_hz,
        macs=rows * inputs * columns,
        small=tuple(found[SMALL][1:]),
        large=tuple(found[large][1:]),
        syncs=syncs,
    )


def npu_facts(times: NpuTimes) -> Npu:
    """The same as facts of a board."""
    repeats = len(times.small)

    def constants(choose: Callable[[tuple[float, ...]], float]) -> dict[str, float]:
        small, large = choose(times.small), choose(times.large)
        few, many = (choose(times.syncs[size]) for size in SYNC_BYTES)
        least, fastest = UNITS["s"].least, UNITS["B/s/core"].most
        found = {
            "npu_cores": float(times.cores),
            "npu_submit_seconds": max(small, least),
            "npu_sync_call_seconds": max(few, least),
            "cpu_cache_sync_bandwidth": min(
                (SYNC_BYTES[1] - SYNC_BYTES[0]) / max(many - few, many / 10, least), fastest
            ),
        }
        if times.hz:
            own = max(large - small, large / 10, least)
            found |= {"npu_hz": times.hz, "npu_int8_macs_per_cycle": times.macs / own / times.hz}
        return found

    how = {
        "npu_cores": "those that computed a small product right",
        "npu_hz": "stated by the driver or the system",
        "npu_submit_seconds": "a job of 4 x 32 x 32 products, from submit to the end of the wait",
        "npu_sync_call_seconds": f"{SYNC_BYTES[0]} bytes handed to the device",
        "cpu_cache_sync_bandwidth": f"{SYNC_BYTES[1]} bytes handed to the device, less that",
        "npu_int8_macs_per_cycle": f"a job of {times.macs} products on one core, less the small one",
    }
    units = {
        "npu_cores": "cores",
        "npu_hz": "Hz",
        "npu_submit_seconds": "s",
        "npu_sync_call_seconds": "s",
        "cpu_cache_sync_bandwidth": "B/s/core",
        "npu_int8_macs_per_cycle": "MAC/cycle/core",
    }
    return Npu(
        times.driver, times.version, times.cores, times.virtual, spread_of(constants, units, how, repeats)
    )


def _run(device: NpuDevice, job: Loaded) -> None:
    device.submit([job], _JOB_MS)
    device.wait()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _syncs(device: NpuDevice, size: int, repeats: int) -> tuple[float, ...]:
    with _buffer(device, size) as buffer:
        return tuple(_seconds(lambda: device.sync(buffer, TO_DEVICE)) for _ in range(repeats + 1))[1:]


@contextmanager
def _buffer(device: NpuDevice, size: int) -> Iterator[Buffer]:
    buffer = device.allocate(size)
    try:
        yield buffer
    finally:
        device.release(buffer)


@contextmanager
def _product(device: NpuDevice, shape: tuple[int, int, int]) -> Iterator[Loaded]:
    """A product of zeros on the first core."""
    rows, inputs, columns = shape
    chain = product_program(rows, inputs, columns)
    with (
        _buffer(device, chain.size_bytes + chain.size_bytes % 16) as words,
        _buffer(device, rows * inputs) as left,
        _buffer(device, columns * inputs) as right,
        _buffer(device, 4 * rows * columns) as sums,
    ):
        for buffer in (left, right, sums):
            device.sync(buffer, TO_DEVICE)
        program = device.load(chain, words)
        try:
            bindings = {INPUT: Binding(left), WEIGHT: Binding(right), OUTPUT: Binding(sums, True)}
            device.bind(program, bindings)
            yield program
        finally:
            device.unload(program)
