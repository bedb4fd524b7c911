"""The native core seen from Python: the structs of native/rockledge.h, the loader, and `Program`.

ctypes releases the GIL during every call, so a whole step runs without it.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NativeError
from rockledge.formats.bands import INDEX_BYTES, TILE_BYTES, strips, tiles
from rockledge.runtime.choices import KERNELS

ABI = 10
LIBRARY = "librockledge.so"
STEP_LOGITS = -2  # as an output buffer: the logits array of the step
UNUSED = -1


class OpCode(IntEnum):
    """Operations, as in the table of native/rockledge.h."""

    EMBED = 1
    NORM_QUANT = 2
    NORM = 3
    QUANT = 4
    LINEAR = 5
    ROPE_KV = 6
    ATTENTION = 7
    GATED_QUANT = 8
    GATHER = 9
    ROTATE = 10
    NORM_ADD = 11
    LOGITS = 12


class Activation(IntEnum):
    """What GATED_QUANT makes of the gate."""

    SILU = 0
    GELU_TANH = 1


class BufferKind(IntEnum):
    """What a buffer holds: fp32 rows, or int8 planes padded to 32."""

    FLOAT = 0
    INT8 = 1


@dataclass(frozen=True)
class Band:
    """Rows of one linear that share a code width; arrays as `rockledge.formats` packs them.

    `codes` u8 and `index` u8 (None at 8 bits) must start on 64 bytes; `tables` i8 [16, 16] (None at 8 bits);
    `scale` f32 [rows]; `bias` f32 [rows] or None.
    """

    codes: NDArray[np.uint8]
    index: NDArray[np.uint8] | None
    tables: NDArray[np.int8] | None
    scale: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    rows: int
    cols: int
    bits: int
    out_column: int


@dataclass(frozen=True)
class Buffer:
    """One intermediate: `width` elements a row; buffers of one `slot` may share memory."""

    kind: BufferKind
    width: int
    slot: int
    planes: int = 1


@dataclass(frozen=True)
class Op:
    """One operation; field meanings by code are in the table of native/rockledge.h."""

    code: OpCode
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    on_logits: bool = False
    first_band: int = 0
    bands: int = 0
    dim: tuple[int, ...] = ()
    real: tuple[float, ...] = ()
    weight: tuple[NDArray[np.float32] | None, ...] = ()


@dataclass(frozen=True)
class Pool:
    """The cache pages of layers with one window: the positions that a query sees, or 0 for all up to it."""

    layers: int
    pages: int
    window: int = 0


@dataclass(frozen=True)
class Shape:
    """Sizes the whole program shares; `page_tokens` is a power of two in 8..512, positions lie below
    `context`. Of a step, up to `logit_rows` rows can be drawn from."""

    max_rows: int
    heads: int
    kv_heads: int
    head_dim: int
    page_tokens: int
    context: int
    pools: tuple[Pool, ...]
    logit_rows: int = 0


@dataclass(frozen=True)
class ProgramMemory:
    """Bytes (of address space, committed when first touched): `arena` of a step, its buffers and what threads
    keep for themselves; of the program its `tables` and the key/value `cache`."""

    arena: int
    tables: int
    cache: int

    @property
    def working(self) -> int:
        """What is not cache."""
        return self.arena + self.tables


class _Band(ctypes.Structure):
    _fields_ = [
        ("codes", ctypes.c_void_p),
        ("index", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("rows", ctypes.c_int32),
        ("cols", ctypes.c_int32),
        ("bits", ctypes.c_int32),
        ("out_column", ctypes.c_int32),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("kind", "width", "planes", "slot")]


class _Op(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_int32),
        ("on_logits", ctypes.c_int32),
        ("in_", ctypes.c_int32 * 3),
        ("out", ctypes.c_int32 * 3),
        ("first_band", ctypes.c_int32),
        ("bands", ctypes.c_int32),
        ("dim", ctypes.c_int32 * 4),
        ("real", ctypes.c_float * 6),
        ("weight", ctypes.c_void_p * 4),
    ]


class _Pool(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("layers", "pages", "window")]


class _Shape(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in ("max_rows", "heads", "kv_heads", "head_dim", "page_tokens", "context", "pools")
        ),
        ("pool", ctypes.POINTER(_Pool)),
        ("logit_rows", ctypes.c_int32),
    ]


class MemoryRecord(ctypes.Structure):
    """`rl_memory`."""

    _fields_ = [(name, ctypes.c_int64) for name in ("arena", "tables", "cache")]


def library_path() -> Path:
    """Where the library is looked for: the environment's ROCKLEDGE_LIBRARY, then the package directory."""
    chosen = os.environ.get("ROCKLEDGE_LIBRARY")
    return Path(chosen) if chosen else Path(__file__).resolve().parent.parent / LIBRARY


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The loaded library. Raises NativeError when it is missing, unloadable or of another version."""
    path = library_path()
    if not path.exists():
        raise NativeError(f"the native core {path} does not exist; build it with `make native`")
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(
            f"the native core {path} cannot be loaded ({error}); rebuild it with `make native`"
        ) from None
    lib.rl_abi.restype = ctypes.c_int32
    found = lib.rl_abi()
    if found != ABI:
        raise NativeError(
            f"the native core {path} has interface {found}, expected {ABI}; rebuild it with `make native`"
        )
    pointer, i32, i64, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_char_p
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rl_error": (text, []),
        "rl_explain_bus_errors": (None, [pointer, i64, text, i32]),
        "rl_kernel_name": (text, [i32]),
        "rl_program_create": (pointer, [pointer, i32, pointer, i32, pointer, i32, pointer, i32]),
        "rl_program_destroy": (None, [pointer]),
        "rl_program_kernel": (i32, [pointer]),
        "rl_program_memory": (i32, [pointer, pointer]),
        "rl_program_plan": (i32, [pointer, i32, pointer, i32, pointer, i32, pointer, i32, pointer]),
        "rl_step_create": (pointer, [pointer, i32, i32, i32]),
        "rl_step_destroy": (None, [pointer]),
        "rl_step_memory": (i32, [pointer, pointer]),
        "rl_step_run": (i32, [pointer, pointer, i32, i32]),
        "rl_step_buffer": (pointer, [pointer, i32]),
        "rl_step_times": (i32, [pointer, pointer]),
        "rl_step_use_threads": (i32, [pointer, i32]),
        "rl_stream_create": (pointer, [pointer, pointer]),
        "rl_stream_destroy": (None, [pointer]),
        "rl_stream_get_stats": (i32, [pointer, pointer]),
        "rl_step_use_stream": (i32, [pointer, pointer]),
        "rl_copy_page": (i32, [pointer, i32, i32, i32]),
        "rl_page_bytes": (i64, [pointer, i32]),
        "rl_read_page": (i32, [pointer, i32, i32, pointer]),
        "rl_write_page": (i32, [pointer, i32, i32, pointer]),
        "rl_read_bandwidth": (ctypes.c_double, [i64, i32, i32, i32]),
        "rl_turn_rows": (i32, [pointer, i32, i32, i32, pointer, pointer, i32]),
        "rl_round_rows": (i32, [pointer, i32, i32, pointer, pointer, pointer, pointer, i32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def failure() -> NativeError:
    """The sentence of this thread's last failure in the core."""
    return NativeError(
        bytes(library().rl_error() or b"").decode() or "the native core failed without a reason"
    )


def read_bandwidth(size: int, *, threads: int, repeats: int = 5, huge: bool = False) -> float:
    """Bytes a second that `threads` threads together read from `size` bytes of memory, best of `repeats`.

    Plain vector loads over fresh memory in pages of the usual size, or with `huge` as large as the system
    gives. Raises NativeError when memory runs out.
    """
    found = float(library().rl_read_bandwidth(size, threads, repeats, int(huge)))
    if found < 0:
        raise failure()
    return found


def checked(name: str, array: NDArray[Any] | None, dtype: type, elements: int) -> int | None:
    """The array's address, after making sure that C will find `elements` elements of `dtype` there."""
    if array is None:
        return None
    if array.dtype != dtype or not array.flags.c_contiguous or array.size < elements:
        raise NativeError(
            f"{name} is {array.dtype} {array.shape}, expected {elements} contiguous elements of "
            f"{np.dtype(dtype)}; convert it before passing it to the native core"
        )
    return int(array.ctypes.data)


def _band(number: int, band: Band) -> _Band:
    count = strips(band.rows) * tiles(band.cols)
    name = f"band {number}"
    return _Band(
        checked(f"{name} codes", band.codes, np.uint8, count * TILE_BYTES.get(band.bits, 0)),
        checked(f"{name} index", band.index, np.uint8, count * INDEX_BYTES),
        checked(f"{name} tables", band.tables, np.int8, 256),
        checked(f"{name} scale", band.scale, np.float32, band.rows),
        checked(f"{name} bias", band.bias, np.float32, band.rows),
        band.rows,
        band.cols,
        band.bits,
        band.out_column,
    )


def _filled(values: Sequence[Any], count: int, filler: Any) -> tuple[Any, ...]:
    if len(values) > count:
        raise NativeError(f"an operation has {len(values)} entries, expected at most {count}; shorten it")
    return tuple(values) + (filler,) * (count - len(values))


def _op(op: Op) -> _Op:
    weights = [checked(f"weight of {op.code.name}", w, np.float32, 1) for w in op.weight]
    return _Op(
        int(op.code),
        int(op.on_logits),
        _filled(op.inputs, 3, UNUSED),
        _filled(op.outputs, 3, UNUSED),
        op.first_band,
        op.bands,
        _filled(op.dim, 4, 0),
        _filled(op.real, 6, 0.0),
        _filled(weights, 4, None),
    )


def _lists(ops: Sequence[Op], bands: Sequence[Band], buffers: Sequence[Buffer]) -> tuple[Any, ...]:
    """The lists of a program with their lengths, as the core takes them."""
    c_ops = (_Op * len(ops))(*map(_op, ops))
    c_bands = (_Band * len(bands))(*(_band(i, b) for i, b in enumerate(bands)))
    c_buffers = (_Buffer * len(buffers))(*(_Buffer(int(b.kind), b.width, b.planes, b.slot) for b in buffers))
    return c_ops, len(ops), c_bands, len(bands), c_buffers, len(buffers)


def _shape(shape: Shape) -> Any:
    pools = (_Pool * len(shape.pools))(*(_Pool(*astuple(pool)) for pool in shape.pools))
    sizes = (shape.max_rows, shape.heads, shape.kv_heads, shape.head_dim, shape.page_tokens, shape.context)
    return ctypes.byref(_Shape(*sizes, len(pools), pools, shape.logit_rows))


class Outline:
    """The lists of a program, of which the core says what memory it would take at any size."""

    def __init__(self, ops: Sequence[Op], bands: Sequence[Band], buffers: Sequence[Buffer]) -> None:
        self._lists = _lists(ops, bands, buffers)

    def memory(self, shape: Shape, threads: int) -> ProgramMemory:
        """What a `Program` of this shape and one step of all its rows would take, without taking it.
        NativeError."""
        found = MemoryRecord()
        if library().rl_program_plan(*self._lists, _shape(shape), threads, ctypes.byref(found)) < 0:
            raise failure()
        return ProgramMemory(found.arena, found.tables, found.cache)


class Program:
    """A finished list of operations with its KV pools, which the steps over it share."""

    def __init__(
        self,
        ops: Sequence[Op],
        bands: Sequence[Band],
        buffers: Sequence[Buffer],
        shape: Shape,
        *,
        kernel: str = "auto",
    ) -> None:
        """Raises NativeError with the core's sentence when anything does not fit together."""
        self._handle: int | None = None
        if kernel not in KERNELS:
            raise NativeError(f"there is no kernel {kernel!r}, expected one of {', '.join(KERNELS)}")
        self._lib = library()
        self._kept = (tuple(ops), tuple(bands))  # the core reads these arrays in place
        self.buffers = tuple(buffers)
        self.shape = shape
        lists = _lists(ops, bands, buffers)
        self._handle = self._lib.rl_program_create(*lists, _shape(shape), KERNELS[kernel])
        if not self._handle:
            raise failure()

    @property
    def handle(self) -> int:
        if not self._handle:
            raise NativeError("this program is closed; create a new one")
        return self._handle

    @property
    def kernel(self) -> str:
        """Name of the kernel in use."""
        return bytes(self._lib.rl_kernel_name(self._lib.rl_program_kernel(self.handle))).decode()

    @property
    def memory(self) -> ProgramMemory:
        """What the program has taken; its steps have an arena each."""
        found = MemoryRecord()
        if self._lib.rl_program_memory(self.handle, ctypes.byref(found)) < 0:
            raise failure()
        return ProgramMemory(found.arena, found.tables, found.cache)

    @property
    def vocab(self) -> int:
        """Width of a row of step logits, or of what stands for them; 0 when no operation writes them."""
        ops, bands = self._kept
        writers = [op for op in ops if STEP_LOGITS in op.outputs]
        ends = (
            band.out_column + band.rows
            for op in writers
            for band in bands[op.first_band : op.first_band + op.bands]
        )
        rows = (self.buffers[op.inputs[0]].width for op in writers if not op.bands and op.inputs)
        return max((*ends, *rows), default=0)

    @property
    def operations(self) -> int:
        """How many there are."""
        return len(self._kept[0])

    def copy_page(self, pool: int, source: int, target: int) -> None:
        """Copies one KV page of all layers of a pool (copy on write)."""
        if self._lib.rl_copy_page(self.handle, pool, source, target) < 0:
            raise failure()

    def page_bytes(self, pool: int) -> int:
        """Bytes of a KV page, all layers of its pool."""
        found = int(self._lib.rl_page_bytes(self.handle, pool))
        if found < 0:
            raise failure()
        return found

    def read_page(self, pool: int, page: int, out: NDArray[np.uint8]) -> None:
        """Copies a KV page into `out` uint8 [page_bytes]: the same bytes whatever the kernel."""
        address = checked("out", out, np.uint8, self.page_bytes(pool))
        if not out.flags.writeable:
            raise NativeError("the array for a page is read-only; pass a writable one")
        if self._lib.rl_read_page(self.handle, pool, page, address) < 0:
            raise failure()

    def write_page(self, pool: int, page: int, data: NDArray[np.uint8]) -> None:
        """Makes `data` uint8 [page_bytes], which `read_page` gave, the content of a KV page."""
        address = checked("data", data, np.uint8, self.page_bytes(pool))
        if self._lib.rl_write_page(self.handle, pool, page, address) < 0:
            raise failure()

    def close(self) -> None:
        """Lets go of the cache, which stays for as long as a step over it is open."""
        handle, self._handle = self._handle, None
        if handle:
            self._lib.rl_program_destroy(handle)

    def __del__(self) -> None:
        self.close()
