"""Compares the sums that the NPU left in a lane's output with the core's own of the same operands."""

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.runtime import native

Int32 = NDArray[np.int32]


class _Lane(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("input", "weight", "output", "part_starts", "tile_starts")),
        *((name, ctypes.c_int32) for name in ("n_parts", "n_tiles", "columns", "sums")),
    ]


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    lib = native.library()
    pointer, i32 = ctypes.c_void_p, ctypes.c_int32
    lib.rl_npu_wrong_sums.restype = ctypes.c_int64
    lib.rl_npu_wrong_sums.argtypes = [pointer, pointer, i32, pointer, i32, pointer]
    return lib


@dataclass(frozen=True)
class LaneSums:
    """A lane's operands and output where they lie, uint8 in the layouts of native/npu/npu.h; `part_starts`
    and `tile_starts` int32, `sums` planes of int32 in the output."""

    input: NDArray[np.uint8]
    weight: NDArray[np.uint8]
    output: NDArray[np.uint8]
    part_starts: Int32
    tile_starts: Int32
    columns: int
    sums: int

    def wrong(self, vectors: Int32, columns: Int32) -> tuple[int, int, int]:
        """How many of the sums of these vectors and columns are wrong, and vector and column of the first.

        Raises NpuError for numbers that the lane does not have.
        """
        lane = _Lane(
            *(x.ctypes.data for x in (self.input, self.weight, self.output)),
            *(x.ctypes.data for x in (self.part_starts, self.tile_starts)),
            self.part_starts.size - 1,
            self.tile_starts.size - 1,
            self.columns,
            self.sums,
        )
        vectors, columns = (np.ascontiguousarray(x, np.int32) for x in (vectors, columns))
        where = np.zeros(2, np.int32)
        found = _library().rl_npu_wrong_sums(
            ctypes.byref(lane),
            vectors.ctypes.data,
            vectors.size,
            columns.ctypes.data,
            columns.size,
            where.ctypes.data,
        )
        if found < 0:
            raise NpuError(bytes(_library().rl_error() or b"").decode(errors="replace"))
        return found, int(where[0]), int(where[1])
