"""The core's stream: `rl_stream` of native/rockledge.h, over the file of an artifact."""

import ctypes
from collections.abc import Callable

from rockledge.artifact.uncached import UncachedFile, cut_short, disk_error
from rockledge.errors import RockledgeError
from rockledge.runtime.native import OpCode, Program, failure, library
from rockledge.runtime.program import ProgramPlan
from rockledge.runtime.streaming.fit import Fit
from rockledge.runtime.streaming.pieces import Piece, offset_of
from rockledge.runtime.streaming.status import StreamStats

READERS = 4
"""Threads that read: SSDs and eMMC are as fast as they get with some requests at a time."""
REQUEST_BYTES = 1 << 20
CUT_SHORT = -1  # of rl_stream_stats.failure

ReadAt = Callable[[int, int, int], int]
"""A reader in place of the file's: reads into an address, so many bytes, from an offset on; gives the bytes
that it read, 0 at the end of the file, or a negative errno. Called by several threads at once."""


class _Segment(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("file", "place", "bytes")]


class _Piece(ctypes.Structure):
    _fields_ = [
        ("bytes", ctypes.c_int64),
        ("resident", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("op", "first_segment", "segments")),
    ]


class _Placed(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("codes", "index")]


_READ = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class _Reader(ctypes.Structure):
    _fields_ = [
        ("read", _READ),
        ("context", ctypes.c_void_p),
        ("file_bytes", ctypes.c_int64),
        ("request_bytes", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("file", "forgets", "threads")),
    ]


class _Plan(ctypes.Structure):
    _fields_ = [
        ("piece", ctypes.POINTER(_Piece)),
        ("segment", ctypes.POINTER(_Segment)),
        ("placed", ctypes.POINTER(_Placed)),
        *((name, ctypes.c_int32) for name in ("pieces", "segments", "bands", "gather_threads")),
        ("ring_bytes", ctypes.c_int64),
        ("resident_bytes", ctypes.c_int64),
        ("reader", _Reader),
    ]


class _Stats(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("bytes", "resident_bytes", "gathered_bytes", "waited_ns")),
        *((name, ctypes.c_int32) for name in ("failure", "unused")),
    ]


class WeightStream:
    """Reads the weights of `program`, which are cut into `pieces`, while steps of it run."""

    def __init__(
        self,
        program: Program,
        plan: ProgramPlan,
        pieces: list[Piece],
        chosen: Fit,
        *,
        file: UncachedFile,
        mapping: int,
        threads: int,
        read: ReadAt | None = None,
    ) -> None:
        """`plan`: of which the program is made, its codes views of the file that is mapped at address
        `mapping`; `threads` of the step; `read`: in place of the file's own. The file is closed with the
        stream. Raises NativeError."""
        self._handle: int | None = None
        self._last = _Stats()
        self._lib = library()
        self._file = file
        self._chosen = chosen
        self._program = program  # kept, for the core reads its arrays in place
        self._read = _READ() if read is None else _READ(lambda _, to, size, at: read(to, size, at))
        native = _native_plan(plan, pieces, chosen, mapping)
        native.gather_threads = threads
        native.reader = _Reader(
            self._read, None, file.bytes, REQUEST_BYTES, file.descriptor, int(not file.direct), READERS
        )
        self._handle = self._lib.rl_stream_create(program.handle, ctypes.byref(native))
        if not self._handle:
            raise failure()

    @property
    def handle(self) -> int:
        """Of the open stream."""
        assert self._handle is not None
        return self._handle

    @property
    def file(self) -> UncachedFile:
        """The artifact's."""
        return self._file

    @property
    def stats(self) -> StreamStats:
        """What it has read, also once it is closed."""
        found, chosen = self._stats(), self._chosen
        return StreamStats(
            direct=self._file.direct,
            kept=chosen.kept,
            streamed=chosen.streamed,
            ring=chosen.ring,
            bytes_read=found.bytes,
            kept_read=found.resident_bytes,
            embedding_read=found.gathered_bytes,
            waited_seconds=found.waited_ns / 1e9,
        )

    @property
    def waited_s(self) -> float:
        """Seconds that steps have waited for the disk."""
        return float(self._stats().waited_ns) / 1e9

    def error(self) -> RockledgeError:
        """Why the run that has just ended could not read its weights: DiskError, or ArtifactError where the
        file has become shorter."""
        number = self._stats().failure
        return cut_short(self._file.path) if number == CUT_SHORT else disk_error(self._file.path, number)

    def _stats(self) -> _Stats:
        if self._handle:
            self._lib.rl_stream_get_stats(self._handle, ctypes.byref(self._last))
        return self._last

    def close(self) -> None:
        """Ends the threads, after the step that uses it was closed, and closes the file."""
        self._stats()
        handle, self._handle = self._handle, None
        if handle:
            self._lib.rl_stream_destroy(handle)
        self._file.close()

    def __del__(self) -> None:
        if self._handle:
            self.close()


def _native_plan(plan: ProgramPlan, pieces: list[Piece], chosen: Fit, mapping: int) -> _Plan:
    placed = (_Placed * len(plan.bands))()
    segments: list[_Segment] = []
    listed: list[_Piece] = []
    kept = 0
    for piece, stays in zip(pieces, chosen.resident, strict=True):
        listed.append(
            _Piece(piece.bytes, kept if stays else -1, piece.op, len(segments), len(piece.segments))
        )
        kept += piece.bytes if stays else 0
        place = 0
        for segment in piece.segments:
            segments.append(_Segment(segment.file, place, segment.bytes))
            place += segment.bytes
    by_op = {piece.op: piece for piece in pieces}
    for number, op in enumerate(plan.ops):
        for b in range(op.first_band, op.first_band + op.bands):
            band = plan.bands[b]
            codes = offset_of(band.codes, mapping)
            index = 0 if band.index is None else offset_of(band.index, mapping)
            if op.code is OpCode.LINEAR:
                codes = by_op[number].place(codes)
                index = 0 if band.index is None else by_op[number].place(index)
            placed[b] = _Placed(codes, index)
    return _Plan(
        (_Piece * len(listed))(*listed),
        (_Segment * len(segments))(*segments),
        placed,
        len(listed),
        len(segments),
        len(placed),
        ring_bytes=chosen.ring,
        resident_bytes=kept,
    )
