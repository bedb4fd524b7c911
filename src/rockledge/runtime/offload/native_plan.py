"""Linears of prefill steps on the NPU: the plan that the native core executes, and what it says it has done.

Layouts and rules are in native/npu/npu.h. The core copies and checks the whole plan.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from rockledge.board.boards import NPU_CORES
from rockledge.errors import NpuError
from rockledge.npu.programs.tile_program import INPUT, OUTPUT, SCRATCH, WEIGHT
from rockledge.runtime import native
from rockledge.runtime.native_step import Step
from rockledge.runtime.npu_device import Buffer, Loaded, NpuDevice

ROLES: Final = (INPUT, WEIGHT, OUTPUT, SCRATCH)
"""The order of roles in an offload's programs: give it to `NpuDevice.load`."""

_CORES, _INSTANCES = NPU_CORES, 2


@dataclass(frozen=True)
class BufferPlace:
    """Bytes from `offset`, a multiple of 64, of `buffer` on."""

    buffer: Buffer
    offset: int = 0


@dataclass(frozen=True)
class StepSize:
    """The programs of a shape for steps of up to `rows` tokens.

    `tile_starts` in vectors (rows x planes), from 0 to all of them. `sums`: planes of int32 in the output.
    `programs[instance][lane]`: two instances of each lane's chain, loaded with `ROLES`.
    """

    rows: int
    sums: int
    tile_starts: tuple[int, ...]
    programs: tuple[tuple[Loaded, ...], tuple[Loaded, ...]]


@dataclass(frozen=True)
class OffloadShape:
    """What linears of equal sizes share. `inputs` is padded to 32, `part_starts` goes from 0 to `inputs`."""

    inputs: int
    planes: int
    lane_columns: int
    part_starts: tuple[int, ...]
    sizes: tuple[StepSize, ...]


@dataclass(frozen=True)
class OffloadLinear:
    """Operation `op` of the program, of shape number `shape`, in `blocks` blocks."""

    op: int
    shape: int
    blocks: int


@dataclass(frozen=True)
class OffloadPlan:
    """Everything the core needs; blocks are numbered through all `linears` in their order.

    `slots[s][lane]`, `inputs[lane]`, `outputs[0 or 1][lane]`, `scratch[lane]` (or empty) are places in the
    lane's address space. `block_slot[b]` is the slot of block b.
    """

    lanes: int
    from_rows: int
    timeout_ms: int
    shapes: tuple[OffloadShape, ...]
    linears: tuple[OffloadLinear, ...]
    block_slot: tuple[int, ...]
    slots: tuple[tuple[BufferPlace, ...], ...]
    inputs: tuple[BufferPlace, ...]
    outputs: tuple[tuple[BufferPlace, ...], tuple[BufferPlace, ...]]
    scratch: tuple[BufferPlace, ...] = ()


@dataclass(frozen=True)
class NpuWork:
    """What the NPU did for a program so far.

    `steps` with linears there, and their `rows`; `blocks` that came back; `unpacked_bytes` of int8 weights;
    `waited_ns` for the NPU; `busy_ns` of blocks from start to end; `fallbacks`: times it was left during a
    step. `attention_rows` had their attention there, in `attention_jobs`. `stopped`: why it is used no more.
    """

    steps: int
    rows: int
    blocks: int
    unpacked_bytes: int
    waited_ns: int
    busy_ns: int
    fallbacks: int
    attention_rows: int
    attention_jobs: int
    stopped: str | None


class _Size(ctypes.Structure):
    _fields_ = [
        ("tile_starts", ctypes.POINTER(ctypes.c_int32)),
        *((name, ctypes.c_int32) for name in ("n_tiles", "rows", "sums")),
        ("programs", ctypes.c_int32 * _CORES * _INSTANCES),
    ]


class _Shape(ctypes.Structure):
    _fields_ = [
        ("part_starts", ctypes.POINTER(ctypes.c_int32)),
        ("sizes", ctypes.POINTER(_Size)),
        *((name, ctypes.c_int32) for name in ("n_parts", "n_sizes", "inputs", "planes", "lane_columns")),
    ]


class _Linear(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("op", "shape", "first_block", "blocks")]


class _Place(ctypes.Structure):
    _fields_ = [("buffer", ctypes.c_int32), ("reserved", ctypes.c_int32), ("offset", ctypes.c_int64)]


class _Plan(ctypes.Structure):
    _fields_ = [
        ("shapes", ctypes.POINTER(_Shape)),
        ("linears", ctypes.POINTER(_Linear)),
        ("block_slot", ctypes.POINTER(ctypes.c_int32)),
        ("slots", ctypes.POINTER(_Place)),
        *((name, ctypes.c_int32) for name in ("n_shapes", "n_linears", "n_blocks", "n_slots")),
        *((name, ctypes.c_int32) for name in ("lanes", "from_rows", "timeout_ms", "reserved")),
        ("input", _Place * _CORES),
        ("output", _Place * _CORES * _INSTANCES),
        ("scratch", _Place * _CORES),
    ]


class _Work(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("steps", "rows", "blocks", "unpacked_bytes", "waited_ns", "busy_ns", "fallbacks")
        ),
        ("attention_rows", ctypes.c_int64),
        ("attention_jobs", ctypes.c_int64),
        ("stopped", ctypes.c_int32),
        ("reason", ctypes.c_char * 508),
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    lib = native.library()
    pointer, i32 = ctypes.c_void_p, ctypes.c_int32
    lib.rl_step_use_npu.restype, lib.rl_step_npu_work.restype = i32, i32
    lib.rl_step_use_npu.argtypes = [pointer, pointer, pointer]
    lib.rl_step_npu_work.argtypes = [pointer, pointer]
    return lib


def _failure() -> NpuError:
    return NpuError(
        bytes(_library().rl_error() or b"").decode(errors="replace") or "the NPU failed without a reason"
    )


def use_npu(step: Step, device: NpuDevice, plan: OffloadPlan) -> None:
    """From the next step on, the plan's linears of large steps run on the NPU, to the same floats.

    While it is so, the buffers and programs of the plan cannot be released, and the device stays open even
    after `close`. Raises NpuError when something in the plan does not fit, or while a step runs.
    """
    if _library().rl_step_use_npu(step.handle, device.handle, ctypes.byref(structure(plan))) < 0:
        raise _failure()


def npu_work(step: Step) -> NpuWork:
    """What the NPU did for `step`; also while it runs in another thread."""
    w = _Work()
    if _library().rl_step_npu_work(step.handle, ctypes.byref(w)) < 0:
        raise _failure()
    return NpuWork(
        steps=w.steps,
        rows=w.rows,
        blocks=w.blocks,
        unpacked_bytes=w.unpacked_bytes,
        waited_ns=w.waited_ns,
        busy_ns=w.busy_ns,
        fallbacks=w.fallbacks,
        attention_rows=w.attention_rows,
        attention_jobs=w.attention_jobs,
        stopped=w.reason.decode(errors="replace") if w.stopped else None,
    )


def structure(plan: OffloadPlan) -> ctypes.Structure:
    """rl_npu_plan of a plan; it keeps what it points to."""
    shapes = [_shape(shape) for shape in plan.shapes]
    linears, first_block = [], 0
    for linear in plan.linears:
        linears.append(_Linear(linear.op, linear.shape, first_block, linear.blocks))
        first_block += linear.blocks
    slots = [_place(place) for slot in plan.slots for place in _each(slot, plan.lanes, "a slot")]
    return _Plan(
        (_Shape * len(shapes))(*shapes),
        (_Linear * len(linears))(*linears),
        _integers(plan.block_slot),
        (_Place * len(slots))(*slots),
        len(shapes),
        len(linears),
        len(plan.block_slot),
        len(plan.slots),
        plan.lanes,
        plan.from_rows,
        plan.timeout_ms,
        0,
        _places(_each(plan.inputs, plan.lanes, "the input")),
        (_Place * _CORES * _INSTANCES)(
            *(_places(_each(output, plan.lanes, "an output")) for output in plan.outputs)
        ),
        _places(_each(plan.scratch, plan.lanes, "the scratch") if plan.scratch else ()),
    )


def _shape(shape: OffloadShape) -> _Shape:
    sizes = [
        _Size(
            _integers(size.tile_starts),
            len(size.tile_starts) - 1,
            size.rows,
            size.sums,
            (ctypes.c_int32 * _CORES * _INSTANCES)(*map(_numbers, size.programs)),
        )
        for size in shape.sizes
    ]
    return _Shape(
        _integers(shape.part_starts),
        (_Size * len(sizes))(*sizes),
        len(shape.part_starts) - 1,
        len(sizes),
        shape.inputs,
        shape.planes,
        shape.lane_columns,
    )


def _integers(values: Sequence[int]) -> "ctypes.Array[ctypes.c_int32]":
    return (ctypes.c_int32 * len(values))(*values)


def _numbers(programs: Sequence[Loaded]) -> "ctypes.Array[ctypes.c_int32]":
    return (ctypes.c_int32 * _CORES)(
        *(program.number for program in programs), *[-1] * (_CORES - len(programs))
    )


def _place(place: BufferPlace) -> _Place:
    return _Place(place.buffer.number, 0, place.offset)


def _places(places: Sequence[BufferPlace]) -> Any:
    return (_Place * _CORES)(*map(_place, places), *[_Place(-1, 0, 0)] * (_CORES - len(places)))


def _each(places: Sequence[BufferPlace], lanes: int, what: str) -> Sequence[BufferPlace]:
    """The places, one for each lane."""
    if len(places) != lanes or lanes > _CORES:
        raise NpuError(
            f"{what} has {len(places)} places for {lanes} lanes, expected one for each of 1 to {_CORES} lanes"
        )
    return places
