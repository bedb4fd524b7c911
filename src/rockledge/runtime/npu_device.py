"""The NPU as the native core opens it: buffers, programs, jobs (native/npu/npu.h) behind typed Python.

ctypes releases the GIL during every call, so other threads run while a job is waited for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.board.boards import NPU_CORES
from rockledge.errors import NpuError
from rockledge.npu.programs.marks import marks
from rockledge.npu.stream import PROGRAM_ROLE, Program
from rockledge.runtime import native
from rockledge.runtime.choices import NPU_DRIVERS

ROLES: Final = 8
CORES: Final = NPU_CORES
TO_DEVICE, FROM_DEVICE = 1, 2
_OWN_WORDS = -1


class _Description(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("node", ctypes.c_char * 64),
        ("flavour", ctypes.c_int32),
        ("version", ctypes.c_int32 * 3),
        ("cores", ctypes.c_int32),
        ("spaces", ctypes.c_int32),
        ("iommu", ctypes.c_int32),
        ("failed", ctypes.c_int32),
        ("clock_hz", ctypes.c_int64),
        ("allocated_bytes", ctypes.c_int64),
        ("submits", ctypes.c_int64),
        ("faults", ctypes.c_int64),
        ("resets", ctypes.c_int64),
        ("job_ns", ctypes.c_int64),
        ("device_ns", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in ("syncs", "cleaned_bytes", "invalidated_bytes")),
        ("core_mask", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("sram_bytes", ctypes.c_int64),
        ("sram_free_bytes", ctypes.c_int64),
    ]


class _Place(ctypes.Structure):
    """A relocation (number: the word) or a mark (number: the role, then nothing)."""

    _fields_ = [("number", ctypes.c_int32), ("role", ctypes.c_int32), ("offset", ctypes.c_int64)]


class _Chain(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("words", "relocations", "marks", "starts", "body_words")),
        *((name, ctypes.c_int32) for name in ("n_words", "n_relocations", "n_marks", "programs")),
    ]


class _Binding(ctypes.Structure):
    _fields_ = [
        ("buffer", ctypes.c_int32),
        ("written", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("first", "offset", "bytes")),
    ]


class _Expected(ctypes.Structure):
    _fields_ = [
        ("buffer", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("data", ctypes.c_void_p),
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    lib = native.library()
    pointer, i32, i64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rl_npu_open": (pointer, [i32]),
        "rl_npu_close": (None, [pointer]),
        "rl_npu_describe": (i32, [pointer, pointer]),
        "rl_npu_allocate": (i32, [pointer, i32, i64]),
        "rl_npu_release": (i32, [pointer, i32]),
        "rl_npu_data": (pointer, [pointer, i32]),
        "rl_npu_address": (i64, [pointer, i32]),
        "rl_npu_sync": (i32, [pointer, i32, i64, i64, i32]),
        "rl_npu_program_create": (i32, [pointer, pointer, i32, i64]),
        "rl_npu_program_destroy": (i32, [pointer, i32]),
        "rl_npu_program_bind": (i32, [pointer, i32, pointer, i32]),
        "rl_npu_submit": (i32, [pointer, pointer, i32, i32]),
        "rl_npu_wait": (i32, [pointer]),
        "rl_npu_probe": (i32, [pointer, pointer, i32, pointer, i32, i32, i32]),
        "rl_npu_try": (i32, [pointer, pointer, i32, pointer, i32, i32, i32]),
        "rl_npu_use_cores": (i32, [pointer, i32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name, None)
        if function is None:
            raise NpuError("the native core was built without the NPU; rebuild it with `make native`")
        function.restype, function.argtypes = result, arguments
    return lib


def _failure() -> NpuError:
    return NpuError(
        bytes(_library().rl_error() or b"").decode(errors="replace") or "the NPU failed without a reason"
    )


@dataclass(frozen=True)
class Description:
    """What was opened, and its counters.

    `cores` are in use, by number `core_numbers`. `iommu` and `clock_hz` are None where the driver does not
    say. `faults` counts jobs that failed, were late or left their output untouched, those of probes included,
    and syncs that failed;
    `failed` says that the device was given up.
    `job_seconds`: what the latest job took; `device_seconds`: its work by the driver's own clock, None where
    it has none.
    `syncs` calls handed `cleaned_bytes` to the device and `invalidated_bytes` back, with rocket whole
    buffers.
    `sram_bytes` of system SRAM the kernel lets the NPU use, of which `sram_free_bytes` are free; None where
    the driver does not say.
    """

    driver: str
    node: str
    version: tuple[int, int, int]
    cores: int
    spaces: int
    iommu: bool | None
    clock_hz: int | None
    failed: bool
    allocated_bytes: int
    submits: int
    faults: int
    resets: int
    job_seconds: float
    device_seconds: float | None
    syncs: int
    cleaned_bytes: int
    invalidated_bytes: int
    core_numbers: tuple[int, ...]
    sram_bytes: int | None
    sram_free_bytes: int | None


@dataclass(frozen=True)
class Buffer:
    """Memory that CPU and NPU see: `data` (uint8) here, `address` there, in one of the device's spaces."""

    number: int
    space: int
    address: int
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class Binding:
    """Where a role of a program lies: its bytes from `first` on are those of `buffer` from `offset` on.

    `size` in bytes, None: all of the buffer after `offset`. The CPU sees what is `written` after `wait`.
    """

    buffer: Buffer
    written: bool = False
    first: int = 0
    offset: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A program that the device holds; `roles` in the order of their numbers."""

    number: int
    roles: tuple[str, ...]


class NpuDevice:
    """An open NPU. Not for two threads at once, except `sync`.

    It is locked for this process until `close`, which also frees its buffers.
    """

    def __init__(self, driver: str = "auto") -> None:
        """Opens the device of a driver ("rknpu", "rocket"), or the first found. Raises NpuError."""
        self._handle: int | None = None
        if driver not in NPU_DRIVERS:
            raise NpuError(f"the NPU driver is {driver!r}, expected one of {', '.join(NPU_DRIVERS)}")
        self._lib = _library()
        self._handle = self._lib.rl_npu_open(NPU_DRIVERS[driver])
        if not self._handle:
            raise _failure()

    def describe(self) -> Description:
        """What was opened, and its counters so far."""
        d = _Description()
        self._check(self._lib.rl_npu_describe(self.handle, ctypes.byref(d)))
        return Description(
            driver=d.driver.decode(),
            node=d.node.decode(),
            version=tuple(d.version),
            cores=d.cores,
            spaces=d.spaces,
            iommu=None if d.iommu < 0 else bool(d.iommu),
            clock_hz=d.clock_hz or None,
            failed=bool(d.failed),
            allocated_bytes=d.allocated_bytes,
            submits=d.submits,
            faults=d.faults,
            resets=d.resets,
            job_seconds=d.job_ns / 1e9,
            device_seconds=d.device_ns / 1e9 or None,
            syncs=d.syncs,
            cleaned_bytes=d.cleaned_bytes,
            invalidated_bytes=d.invalidated_bytes,
            core_numbers=tuple(core for core in range(CORES) if d.core_mask >> core & 1),
            sram_bytes=None if d.sram_bytes < 0 else d.sram_bytes,
            sram_free_bytes=None if d.sram_free_bytes < 0 else d.sram_free_bytes,
        )

    def use_cores(self, cores: Sequence[int]) -> None:
        """Starts programs on these cores from now on: the i-th of a submit on the i-th of them.

        With mainline's driver core i stands for address space i. Raises NpuError for a set that the vendor's
        driver cannot start.
        """
        self._check(self._lib.rl_npu_use_cores(self.handle, sum(1 << core for core in cores)))

    def allocate(self, size: int, space: int = 0) -> Buffer:
        """A buffer of `size` zero bytes. Raises NpuError when the driver cannot allocate it."""
        number = self._check(self._lib.rl_npu_allocate(self.handle, space, size))
        address = self._lib.rl_npu_address(self.handle, number)
        pointer = self._lib.rl_npu_data(self.handle, number)
        raw = (ctypes.c_uint8 * size).from_address(pointer)
        return Buffer(number, space, address, np.frombuffer(memoryview(raw), np.uint8))

    def release(self, buffer: Buffer) -> None:
        """Frees a buffer; its `data` must not be touched any more."""
        self._check(self._lib.rl_npu_release(self.handle, buffer.number))

    def sync(self, buffer: Buffer, direction: int, offset: int = 0, size: int | None = None) -> None:
        """Hands a range (default: all) to the device after the CPU wrote it, or back: `direction`."""
        length = buffer.data.size - offset if size is None else size
        self._check(self._lib.rl_npu_sync(self.handle, buffer.number, offset, length, direction))

    def load(
        self,
        program: Program,
        buffer: Buffer,
        offset: int = 0,
        roles: tuple[str, ...] | None = None,
        *,
        marked: bool = True,
    ) -> Loaded:
        """Loads a program; its words lie from byte `offset` of `buffer` on, a multiple of 16.

        `roles`: their order, which gives them numbers; it may have more than the program names. `marked`:
        whether its last sums show that it ran; results that are not int32 have no such mark, their caller
        looks at them.
        """
        named = tuple(dict.fromkeys(r.role for r in program.relocations if r.role != PROGRAM_ROLE))
        roles = named if roles is None else roles
        unknown = set(named) - set(roles)
        if unknown:
            raise NpuError(f"a program names the role {min(unknown)}, expected one of {', '.join(roles)}")
        if len(roles) > ROLES:
            raise NpuError(f"a program names {len(roles)} buffers, expected at most {ROLES}")
        number = {role: i for i, role in enumerate(roles)} | {PROGRAM_ROLE: _OWN_WORDS}
        # The PC fetches pairs of words: an odd stream is followed by nothing.
        words = np.array((*program.words, *(0,) * (len(program.words) % 2)), np.uint64)
        relocations = [_Place(r.word, number[r.role], r.offset) for r in program.relocations]
        places = [_Place(number[mark.role], 0, mark.offset) for mark in (marks(program) if marked else ())]
        c_relocations = (_Place * len(relocations))(*relocations)
        c_marks = (_Place * len(places))(*places)
        starts = np.array(program.starts, np.int32)
        bodies = np.array(program.body_words, np.int32)
        chain = _Chain(
            words.ctypes.data,
            ctypes.addressof(c_relocations),
            ctypes.addressof(c_marks),
            starts.ctypes.data,
            bodies.ctypes.data,
            words.size,
            len(relocations),
            len(places),
            starts.size,
        )
        made = self._lib.rl_npu_program_create(self.handle, ctypes.byref(chain), buffer.number, offset)
        return Loaded(self._check(made), roles)

    def unload(self, program: Loaded) -> None:
        """Forgets a program."""
        self._check(self._lib.rl_npu_program_destroy(self.handle, program.number))

    def bind(self, program: Loaded, bindings: Mapping[str, Binding]) -> None:
        """Writes the program's words with the addresses of its roles, and hands them to the device.

        Raises NpuError for a role that is missing and for an address outside the range that was bound.
        """
        found = [_binding(bindings.get(role)) for role in program.roles]
        listed = (_Binding * len(found))(*found)
        self._check(self._lib.rl_npu_program_bind(self.handle, program.number, listed, len(found)))

    def submit(self, programs: Sequence[Loaded], timeout_ms: int = 2000) -> None:
        """Starts bound programs, one on each core; they may not depend on each other."""
        numbers = (ctypes.c_int32 * len(programs))(*(program.number for program in programs))
        self._check(self._lib.rl_npu_submit(self.handle, numbers, len(programs), timeout_ms))

    def wait(self) -> None:
        """Waits for the job that was submitted, and repeats it once after a reset if it failed.

        Raises NpuError when the repetition fails too; the device is given up then.
        """
        self._check(self._lib.rl_npu_wait(self.handle))

    def probe(
        self,
        programs: Sequence[Loaded],
        expected: Sequence[tuple[Buffer, NDArray[Any]]],
        timeout_ms: int = 2000,
        idle_ms: int = 0,
    ) -> int:
        """A job with known results (the first bytes of each buffer), run now and after every reset, and
        before a job that follows `idle_ms` or more without one (0: never).

        Returns how many runs it took until they were right. Raises NpuError when they are not.
        """
        known = _Known(programs, expected)
        return self._check(self._lib.rl_npu_probe(self.handle, *known.arguments, timeout_ms, idle_ms))

    def attempt(
        self,
        programs: Sequence[Loaded],
        expected: Sequence[tuple[Buffer, NDArray[Any]]],
        timeout_ms: int,
        runs: int,
    ) -> int:
        """As `probe`, at most `runs` times and once and for all: if it fails, the device is not given up."""
        known = _Known(programs, expected)
        return self._check(self._lib.rl_npu_try(self.handle, *known.arguments, timeout_ms, runs))

    @property
    def handle(self) -> int:
        """What native/npu/npu.h calls `rl_npu *`."""
        if not self._handle:
            raise NpuError("this NPU is closed; open it again")
        return self._handle

    def close(self) -> None:
        """Frees everything; `data` of its buffers must not be touched any more."""
        handle, self._handle = self._handle, None
        if handle:
            self._lib.rl_npu_close(handle)

    def __enter__(self) -> NpuDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            raise _failure()
        return result


class _Known:
    """A job with known results for ctypes: `arguments` live as long as this does."""

    def __init__(self, programs: Sequence[Loaded], expected: Sequence[tuple[Buffer, NDArray[Any]]]) -> None:
        numbers = (ctypes.c_int32 * len(programs))(*(program.number for program in programs))
        self._kept = [np.ascontiguousarray(values) for _, values in expected]
        listed = (_Expected * len(self._kept))(
            *(
                _Expected(buffer.number, 0, 0, values.nbytes, values.ctypes.data)
                for (buffer, _), values in zip(expected, self._kept, strict=True)
            )
        )
        self.arguments = (numbers, len(programs), listed, len(self._kept))


def _binding(to: Binding | None) -> _Binding:
    if to is None:
        return _Binding(-1, 0, 0, 0, 0)
    size = to.buffer.data.size - to.offset if to.size is None else to.size
    return _Binding(to.buffer.number, int(to.written), to.first, to.offset, size)
