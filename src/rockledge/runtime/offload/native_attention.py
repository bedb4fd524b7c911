"""Attention of prompts on the NPU: the record of it that the native core takes. Layouts are in npu/npu.h."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rockledge.board.boards import NPU_CORES
from rockledge.errors import NpuError
from rockledge.runtime import native
from rockledge.runtime.native_step import Step
from rockledge.runtime.npu_device import Loaded
from rockledge.runtime.offload.native_plan import BufferPlace

_INSTANCES = 2


@dataclass(frozen=True)
class LoadedSize:
    """The programs of each lane for up to `rows` of its rows, loaded with `native_plan.ROLES`, and the
    vectors of their tiles."""

    rows: int
    score_tile: int
    sum_tile: int
    score_programs: tuple[tuple[Loaded, ...], tuple[Loaded, ...]]
    sum_programs: tuple[Loaded, ...]


@dataclass(frozen=True)
class AttentionOffload:
    """Everything the core needs. `sizes` by rising rows; places of each lane."""

    lanes: int
    start: int
    least_rows: int
    timeout_ms: int
    sizes: tuple[LoadedSize, ...]
    queries: tuple[BufferPlace, ...]
    keys: tuple[BufferPlace, ...]
    scores: tuple[tuple[BufferPlace, ...], tuple[BufferPlace, ...]]
    weights: tuple[BufferPlace, ...]
    values: tuple[BufferPlace, ...]
    sums: tuple[BufferPlace, ...]


class _Place(ctypes.Structure):
    _fields_ = [("buffer", ctypes.c_int32), ("reserved", ctypes.c_int32), ("offset", ctypes.c_int64)]


class _Size(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "score_tile", "sum_tile")),
        ("score_programs", ctypes.c_int32 * NPU_CORES * _INSTANCES),
        ("sum_programs", ctypes.c_int32 * NPU_CORES),
    ]


class _Attention(ctypes.Structure):
    _fields_ = [
        ("sizes", ctypes.POINTER(_Size)),
        *(
            (name, ctypes.c_int32)
            for name in ("n_sizes", "lanes", "from_", "least_rows", "timeout_ms", "reserved")
        ),
        ("queries", _Place * NPU_CORES),
        ("keys", _Place * NPU_CORES),
        ("scores", _Place * NPU_CORES * _INSTANCES),
        ("weights", _Place * NPU_CORES),
        ("values", _Place * NPU_CORES),
        ("sums", _Place * NPU_CORES),
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    lib = native.library()
    lib.rl_step_attend_on_npu.restype = ctypes.c_int32
    lib.rl_step_attend_on_npu.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return lib


def attend_on_npu(step: Step, plan: AttentionOffload) -> None:
    """From the next step on, attention of prompt rows from `plan.start` on runs on the NPU that `step` uses,
    to the same floats. Raises NpuError when something in the plan does not fit, or while a step runs."""
    if _library().rl_step_attend_on_npu(step.handle, ctypes.byref(structure(plan))) < 0:
        raise NpuError(bytes(_library().rl_error() or b"").decode(errors="replace"))


def structure(plan: AttentionOffload) -> ctypes.Structure:
    """rl_npu_attention of a plan; it keeps what it points to."""
    sizes = [
        _Size(
            size.rows,
            size.score_tile,
            size.sum_tile,
            (ctypes.c_int32 * NPU_CORES * _INSTANCES)(*map(_numbers, size.score_programs)),
            _numbers(size.sum_programs),
        )
        for size in plan.sizes
    ]
    first, second = map(_places, plan.scores)
    return _Attention(
        (_Size * len(sizes))(*sizes),
        len(sizes),
        plan.lanes,
        plan.start,
        plan.least_rows,
        plan.timeout_ms,
        0,
        _places(plan.queries),
        _places(plan.keys),
        (_Place * NPU_CORES * _INSTANCES)(first, second),
        _places(plan.weights),
        _places(plan.values),
        _places(plan.sums),
    )


def _numbers(programs: Sequence[Loaded]) -> "ctypes.Array[ctypes.c_int32]":
    return (ctypes.c_int32 * NPU_CORES)(
        *(program.number for program in programs), *[-1] * (NPU_CORES - len(programs))
    )


def _places(places: Sequence[BufferPlace]) -> "ctypes.Array[_Place]":
    found = [_Place(place.buffer.number, 0, place.offset) for place in places]
    return (_Place * NPU_CORES)(*found, *[_Place(-1, 0, 0)] * (NPU_CORES - len(found)))
