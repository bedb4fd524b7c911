"""The native core seen from Python: the structs of native/rockledge.h, the loader, `Program` and `sampler`.

ctypes releases the GIL during every call, so a whole step runs without it.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NativeError
from rockledge.formats.bands import INDEX_BYTES, TILE_BYTES, padded, strips, tiles
from rockledge.runtime.choices import KERNELS
from rockledge.runtime.native_draw import DrawRecord, SamplingRecord

ABI = 8
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
    """Bytes of a program (address space; pages are committed when first touched): buffers, tables and what
    threads keep for themselves; and the key/value cache, 0 where another program owns it."""

    arena: int
    cache: int


@dataclass(frozen=True)
class Step:
    """One step: int32 arrays of equal length `rows`; `block_tables` [pools, sequences, width], or
    [sequences, width] where there is one pool; `logit_rows` [n]."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    block_tables: NDArray[np.int32]
    logit_rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))


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


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("arena", "cache")]


class StepRecord(ctypes.Structure):
    """`rl_step`; `kept` is what its addresses lead to."""

    kept: tuple[Any, ...]
    _fields_ = [
        ("rows", ctypes.c_int32),
        ("sequences_count", ctypes.c_int32),
        ("table_width", ctypes.c_int32),
        ("logit_count", ctypes.c_int32),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("sequences", ctypes.c_void_p),
        ("block_tables", ctypes.c_void_p),
        ("logit_rows", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("draws", ctypes.c_void_p),
    ]


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
        "rl_program_create": (pointer, [pointer, i32, pointer, i32, pointer, i32, pointer, i32, i32]),
        "rl_program_destroy": (None, [pointer]),
        "rl_program_kernel": (i32, [pointer]),
        "rl_program_memory": (i32, [pointer, pointer]),
        "rl_program_plan": (i32, [pointer, i32, pointer, i32, pointer, i32, pointer, i32, pointer]),
        "rl_program_run": (i32, [pointer, pointer, i32, i32]),
        "rl_program_buffer": (pointer, [pointer, i32]),
        "rl_program_times": (i32, [pointer, pointer]),
        "rl_program_share_cache": (i32, [pointer, pointer]),
        "rl_copy_page": (i32, [pointer, i32, i32, i32]),
        "rl_page_bytes": (i64, [pointer, i32]),
        "rl_read_page": (i32, [pointer, i32, i32, pointer]),
        "rl_write_page": (i32, [pointer, i32, i32, pointer]),
        "rl_read_bandwidth": (ctypes.c_double, [i64, i32, i32, i32]),
        "rl_turn_rows": (i32, [pointer, i32, i32, i32, pointer, pointer, i32]),
        "rl_round_rows": (i32, [pointer, i32, i32, pointer, pointer, pointer, pointer, i32]),
        "rl_sample": (i32, [pointer, i32, pointer, ctypes.c_uint64]),
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


def _checked(name: str, array: NDArray[Any] | None, dtype: type, elements: int) -> int | None:
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
        _checked(f"{name} codes", band.codes, np.uint8, count * TILE_BYTES.get(band.bits, 0)),
        _checked(f"{name} index", band.index, np.uint8, count * INDEX_BYTES),
        _checked(f"{name} tables", band.tables, np.int8, 256),
        _checked(f"{name} scale", band.scale, np.float32, band.rows),
        _checked(f"{name} bias", band.bias, np.float32, band.rows),
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
    weights = [_checked(f"weight of {op.code.name}", w, np.float32, 1) for w in op.weight]
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
        """What `Program` would take with this shape and these threads, without taking it. NativeError."""
        found = _Memory()
        if library().rl_program_plan(*self._lists, _shape(shape), threads, ctypes.byref(found)) < 0:
            raise failure()
        return ProgramMemory(found.arena, found.cache)


class Program:
    """A finished list of operations with its arena, KV pools and threads. Not for two threads at once."""

    def __init__(
        self,
        ops: Sequence[Op],
        bands: Sequence[Band],
        buffers: Sequence[Buffer],
        shape: Shape,
        *,
        threads: int = 1,
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
        self._handle = self._lib.rl_program_create(*lists, _shape(shape), threads, KERNELS[kernel])
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
        """What the program holds now."""
        found = _Memory()
        if self._lib.rl_program_memory(self.handle, ctypes.byref(found)) < 0:
            raise failure()
        return ProgramMemory(found.arena, found.cache)

    def run(
        self,
        step: Step,
        logits: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int = -1,
        draws: Sequence[DrawRecord] = (),
    ) -> None:
        """Runs operations first .. last-1 (-1: to the end); writes `logits` f32 [len(logit_rows), vocab], or
        fills in `draws`, one for each logit row.

        Raises NativeError when an argument is out of range; nothing was computed then.
        """
        self.prepare(step, logits, first, last, draws)()

    def prepare(
        self,
        step: Step,
        logits: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int = -1,
        draws: Sequence[DrawRecord] = (),
    ) -> Callable[[], None]:
        """A call that runs `step` as its arrays are then: they are read in place, so a decode loop only
        changes the numbers in them and pays for no checks or allocations. Raises as `run` does."""
        rows = step.tokens.size
        sequences, width = step.block_tables.shape[-2:]
        entries = max(1, len(self.shape.pools)) * sequences * width
        if logits is not None and not logits.flags.writeable:
            raise NativeError("the logits array is read-only; pass a writable one")
        if draws and len(draws) != step.logit_rows.size:
            raise NativeError(f"{len(draws)} draws for {step.logit_rows.size} logit rows; give one for each")
        addresses = (ctypes.c_void_p * len(draws))(*map(ctypes.addressof, draws))
        record = StepRecord(
            rows,
            sequences,
            width,
            step.logit_rows.size,
            _checked("tokens", step.tokens, np.int32, rows),
            _checked("positions", step.positions, np.int32, rows),
            _checked("sequences", step.sequences, np.int32, rows),
            _checked("block_tables", step.block_tables, np.int32, entries),
            _checked("logit_rows", step.logit_rows, np.int32, 0),
            _checked("logits", logits, np.float32, step.logit_rows.size * self.vocab),
            ctypes.addressof(addresses) if draws else None,
        )
        record.kept = (step, logits, addresses, draws)  # the core reads and writes these in place
        return self.prepared(record, first, last)

    def prepared(self, record: StepRecord, first: int = 0, last: int = -1) -> Callable[[], None]:
        """A call that runs what `record` says then. The caller answers for its addresses and lengths."""
        reference, native_run = ctypes.byref(record), self._lib.rl_program_run

        def run() -> None:
            if native_run(self.handle, reference, first, last) < 0:
                raise failure()

        return run

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

    def buffer(self, number: int) -> NDArray[Any]:
        """A view of a whole buffer: fp32 [max_rows, width], int8 [max_rows, planes, padded]."""
        address = self._lib.rl_program_buffer(self.handle, number)
        if not address:
            raise failure()
        spec = self.buffers[number]
        shape: tuple[int, ...] = (self.shape.max_rows, spec.width)
        dtype: np.dtype[Any] = np.dtype(np.float32)
        if spec.kind == BufferKind.INT8:
            shape, dtype = (self.shape.max_rows, spec.planes, padded(spec.width)), np.dtype(np.int8)
        raw = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
        return np.ndarray(shape, dtype, buffer=memoryview(raw))

    def time_operations(self) -> NDArray[np.int64]:
        """Nanoseconds of every operation, int64 [ops], that all runs from now on add to."""
        times = np.zeros(len(self._kept[0]), np.int64)
        if self._lib.rl_program_times(self.handle, times.ctypes.data) < 0:
            raise failure()
        self._times = times  # the core writes into it
        return times

    def share_cache(self, other: "Program") -> None:
        """From now on works on the KV pages of `other`, which has the same number and shape of them.

        A page that one of them writes may not be read by the other at the same time.
        """
        if self._lib.rl_program_share_cache(self.handle, other.handle) < 0:
            raise failure()

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
        address = _checked("out", out, np.uint8, self.page_bytes(pool))
        if not out.flags.writeable:
            raise NativeError("the array for a page is read-only; pass a writable one")
        if self._lib.rl_read_page(self.handle, pool, page, address) < 0:
            raise failure()

    def write_page(self, pool: int, page: int, data: NDArray[np.uint8]) -> None:
        """Makes `data` uint8 [page_bytes], which `read_page` gave, the content of a KV page."""
        address = _checked("data", data, np.uint8, self.page_bytes(pool))
        if self._lib.rl_write_page(self.handle, pool, page, address) < 0:
            raise failure()

    def close(self) -> None:
        """Ends the threads and frees the memory; views from `buffer` are invalid afterwards."""
        handle, self._handle = self._handle, None
        if handle:
            self._lib.rl_program_destroy(handle)

    def __del__(self) -> None:
        self.close()


def sampler(
    logits: NDArray[np.float32],
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
) -> Callable[[int], int]:
    """A call that draws a token from `logits` f32 [vocab] as they are then; its argument numbers the draw.

    Temperature first, then top-k, then min-p and top-p on what is left (0, 0 and 1 are off); temperature 0
    takes the largest logit. The call raises NativeError for settings out of range or without any number.
    """
    settings = SamplingRecord(temperature, top_p, min_p, top_k, seed & 0xFFFFFFFFFFFFFFFF)
    address, reference = _checked("logits", logits, np.float32, 1), ctypes.byref(settings)
    native_sample = library().rl_sample

    def draw(number: int) -> int:
        token = int(native_sample(address, logits.size, reference, number))
        if token < 0:
            raise failure()
        return token

    return draw
