"""What runs the rows of one step of a program: `rl_step` and `rl_batch` of native/rockledge.h."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NativeError
from rockledge.formats.bands import padded
from rockledge.runtime.native import BufferKind, MemoryRecord, Program, checked, failure, library
from rockledge.runtime.native_draw import DrawRecord
from rockledge.runtime.streaming.stream import WeightStream

FILE_FAILED = -2  # of rl_step_run: the weights could not be read


@dataclass(frozen=True)
class Batch:
    """The rows of one step: int32 arrays of equal length `rows`; `block_tables` [pools, sequences, width], or
    [sequences, width] where there is one pool; `logit_rows` [n]."""

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    block_tables: NDArray[np.int32]
    logit_rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))


class BatchRecord(ctypes.Structure):
    """`rl_batch`; `kept` is what its addresses lead to."""

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


class Step:
    """Memory and threads for steps of up to `max_rows` rows of `program`. Not for two threads at once; two
    steps of one program may run at once, on pages that the other does not write."""

    def __init__(
        self,
        program: Program,
        *,
        max_rows: int | None = None,
        logit_rows: int | None = None,
        threads: int = 1,
    ) -> None:
        """`max_rows`, `logit_rows`: None for those of the program's shape. Raises NativeError."""
        self._handle: int | None = None
        self._stream: WeightStream | None = None
        self._lib = library()
        self.program = program  # kept, for the core reads its arrays in place
        self.max_rows = program.shape.max_rows if max_rows is None else max_rows
        drawn = program.shape.logit_rows if logit_rows is None else logit_rows
        self.logit_rows = min(drawn, self.max_rows) if logit_rows is None else drawn
        self._handle = self._lib.rl_step_create(program.handle, self.max_rows, self.logit_rows, threads)
        if not self._handle:
            raise failure()

    @property
    def handle(self) -> int:
        if not self._handle:
            raise NativeError("this step is closed; create a new one")
        return self._handle

    @property
    def arena_bytes(self) -> int:
        """Bytes of its memory, those of address space."""
        found = MemoryRecord()
        if self._lib.rl_step_memory(self.handle, ctypes.byref(found)) < 0:
            raise failure()
        return int(found.arena)

    def run(
        self,
        batch: Batch,
        logits: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int = -1,
        draws: Sequence[DrawRecord] = (),
    ) -> None:
        """Runs operations first .. last-1 (-1: to the end); writes `logits` f32 [len(logit_rows), vocab], or
        fills in `draws`, one for each logit row.

        Raises NativeError when an argument is out of range; nothing was computed then.
        """
        self.prepare(batch, logits, first, last, draws)()

    def prepare(
        self,
        batch: Batch,
        logits: NDArray[np.float32] | None = None,
        first: int = 0,
        last: int = -1,
        draws: Sequence[DrawRecord] = (),
    ) -> Callable[[], None]:
        """A call that runs `batch` as its arrays are then: they are read in place, so a decode loop only
        changes the numbers in them and pays for no checks or allocations. Raises as `run` does."""
        rows = batch.tokens.size
        sequences, width = batch.block_tables.shape[-2:]
        entries = max(1, len(self.program.shape.pools)) * sequences * width
        if logits is not None and not logits.flags.writeable:
            raise NativeError("the logits array is read-only; pass a writable one")
        if draws and len(draws) != batch.logit_rows.size:
            raise NativeError(f"{len(draws)} draws for {batch.logit_rows.size} logit rows; give one for each")
        addresses = (ctypes.c_void_p * len(draws))(*map(ctypes.addressof, draws))
        record = BatchRecord(
            rows,
            sequences,
            width,
            batch.logit_rows.size,
            checked("tokens", batch.tokens, np.int32, rows),
            checked("positions", batch.positions, np.int32, rows),
            checked("sequences", batch.sequences, np.int32, rows),
            checked("block_tables", batch.block_tables, np.int32, entries),
            checked("logit_rows", batch.logit_rows, np.int32, 0),
            checked("logits", logits, np.float32, batch.logit_rows.size * self.program.vocab),
            ctypes.addressof(addresses) if draws else None,
        )
        record.kept = (batch, logits, addresses, draws)  # the core reads and writes these in place
        return self.prepared(record, first, last)

    def prepared(self, record: BatchRecord, first: int = 0, last: int = -1) -> Callable[[], None]:
        """A call that runs what `record` says then. The caller answers for its addresses and lengths."""
        reference, native_run = ctypes.byref(record), self._lib.rl_step_run

        def run() -> None:
            result = native_run(self.handle, reference, first, last)
            if result == FILE_FAILED and self._stream is not None:
                raise self._stream.error()
            if result < 0:
                raise failure()

        return run

    def buffer(self, number: int) -> NDArray[Any]:
        """A view of a whole buffer: fp32 [max_rows, width], int8 [max_rows, planes, padded]."""
        address = self._lib.rl_step_buffer(self.handle, number)
        if not address:
            raise failure()
        spec = self.program.buffers[number]
        shape: tuple[int, ...] = (self.max_rows, spec.width)
        dtype: np.dtype[Any] = np.dtype(np.float32)
        if spec.kind == BufferKind.INT8:
            shape, dtype = (self.max_rows, spec.planes, padded(spec.width)), np.dtype(np.int8)
        raw = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(address)
        return np.ndarray(shape, dtype, buffer=memoryview(raw))

    def use_threads(self, threads: int) -> None:
        """From the next run on so many threads work, up to those that were asked for at first; no result
        changes. Raises NativeError."""
        if self._lib.rl_step_use_threads(self.handle, threads) < 0:
            raise failure()

    def use_stream(self, stream: WeightStream) -> None:
        """From now on the weights are those that `stream` reads, which is closed after this step. Runs then
        also raise DiskError, and ArtifactError where the file has become shorter; the next run tries again.
        Raises NativeError."""
        if self._lib.rl_step_use_stream(self.handle, stream.handle) < 0:
            raise failure()
        self._stream = stream

    def time_operations(self) -> NDArray[np.int64]:
        """Nanoseconds of every operation, int64 [ops], that all runs from now on add to."""
        times = np.zeros(self.program.operations, np.int64)
        if self._lib.rl_step_times(self.handle, times.ctypes.data) < 0:
            raise failure()
        self._times = times  # the core writes into it
        return times

    def close(self) -> None:
        """Ends the threads and frees the memory; views from `buffer` are invalid afterwards."""
        handle, self._handle = self._handle, None
        if handle:
            self._lib.rl_step_destroy(handle)

    def __del__(self) -> None:
        self.close()
