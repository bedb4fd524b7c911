"""A program whose matrices are cut into pieces, and where each piece lies in the artifact's file.

A piece is what one operation multiplies with, of at most so many bytes: larger matrices are cut by rows into
operations that follow each other. No result changes, because every output row has a sum of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.artifact.uncached import BLOCK
from rockledge.formats.bands import INDEX_BYTES, STRIP, TILE_BYTES, tiles
from rockledge.runtime.native import Band, Op, OpCode
from rockledge.runtime.program import ProgramPlan

_TOGETHER = 8  # strips: wherever they begin, codes and index lie on 64 bytes
_GAP = 64 << 10  # bytes between two parts of a piece that are read rather than left out


@dataclass(frozen=True)
class Segment:
    """Bytes of the file that are read together, in whole blocks; the last may end beyond the file."""

    file: int
    bytes: int


@dataclass(frozen=True)
class Piece:
    """What operation `op` multiplies with."""

    op: int
    segments: tuple[Segment, ...]

    @property
    def bytes(self) -> int:
        """Of memory, and of a read."""
        return sum(segment.bytes for segment in self.segments)

    def place(self, offset: int) -> int:
        """Where a byte of the file lies in the memory of the piece."""
        before = 0
        for segment in self.segments:
            if segment.file <= offset < segment.file + segment.bytes:
                return before + offset - segment.file
            before += segment.bytes
        raise ValueError(f"byte {offset} of the file is not in this piece")


def cut(plan: ProgramPlan, most: int) -> ProgramPlan:
    """The same program, with linears of at most `most` bytes of codes and indices each, or 64 rows."""
    ops: list[Op] = []
    bands: list[Band] = []
    for op in plan.ops:
        own = plan.bands[op.first_band : op.first_band + op.bands]
        groups = _groups(own, most) if op.code is OpCode.LINEAR else [own] if own else []
        for group in groups:
            ops.append(replace(op, first_band=len(bands), bands=len(group)))
            bands.extend(group)
        if not groups:
            ops.append(op)
    return replace(plan, ops=tuple(ops), bands=tuple(bands))


def _groups(bands: Sequence[Band], most: int) -> list[Sequence[Band]]:
    """The bands in groups of at most `most` bytes, about as large as each other."""
    total = sum(_stored(band, 0, band.rows) for band in bands)
    target = -(-total // max(1, -(-total // most)))
    groups: list[list[Band]] = [[]]
    room = target
    for band in bands:
        first = 0
        while first < band.rows:
            strip = _stored(band, 0, STRIP)
            fits = room // (strip * _TOGETHER) * STRIP * _TOGETHER
            if fits == 0 and groups[-1]:
                groups.append([])
                room = target
                continue
            rows = min(band.rows - first, max(fits, STRIP * _TOGETHER))
            groups[-1].append(_rows(band, first, rows))
            room -= _stored(band, first, first + rows)
            first += rows
    return [group for group in groups if group]


def _stored(band: Band, first: int, end: int) -> int:
    """Bytes of codes and index of the rows from `first` on, which begins a strip."""
    return -(-(end - first) // STRIP) * tiles(band.cols) * _tile_bytes(band)


def _tile_bytes(band: Band) -> int:
    return TILE_BYTES[band.bits] + (INDEX_BYTES if band.index is not None else 0)


def _rows(band: Band, first: int, rows: int) -> Band:
    """Rows of a band as a band: views of its arrays."""
    if rows == band.rows:
        return band

    def part(array: npt.NDArray[np.uint8], tile: int) -> npt.NDArray[np.uint8]:
        strip = tile * tiles(band.cols)
        return array[first // STRIP * strip : -(-(first + rows) // STRIP) * strip]

    return replace(
        band,
        codes=part(band.codes, TILE_BYTES[band.bits]),
        index=None if band.index is None else part(band.index, INDEX_BYTES),
        scale=band.scale[first : first + rows],
        bias=None if band.bias is None else band.bias[first : first + rows],
        rows=rows,
        out_column=band.out_column + first,
    )


def offset_of(array: npt.NDArray[np.uint8], mapping: int) -> int:
    """Where an array lies in the file that is mapped at address `mapping`, of which it is a view."""
    return int(array.ctypes.data) - mapping


def pieces_of(plan: ProgramPlan, mapping: int) -> list[Piece]:
    """The pieces of the program's linears, in order; `mapping`: the address where the file is mapped."""
    return [
        Piece(number, _segments(plan.bands[op.first_band : op.first_band + op.bands], mapping))
        for number, op in enumerate(plan.ops)
        if op.code is OpCode.LINEAR
    ]


def _segments(bands: Sequence[Band], mapping: int) -> tuple[Segment, ...]:
    ranges: list[tuple[int, int]] = []
    for begin, size in sorted(_ranges(bands, mapping)):
        first, end = begin // BLOCK * BLOCK, -(-(begin + size) // BLOCK) * BLOCK
        if ranges and first <= ranges[-1][1] + _GAP:
            ranges[-1] = ranges[-1][0], max(end, ranges[-1][1])
        else:
            ranges.append((first, end))
    return tuple(Segment(first, end - first) for first, end in ranges)


def _ranges(bands: Sequence[Band], mapping: int) -> Iterator[tuple[int, int]]:
    for band in bands:
        for array in (band.codes, band.index):
            if array is not None:
                yield offset_of(array, mapping), array.nbytes


def held_bytes(plan: ProgramPlan, mapped: npt.NDArray[np.uint8]) -> int:
    """Bytes of what is not in pieces and has to be in memory: scales, tables, biases and gains that are views
    of the file `mapped`."""
    return sum(array.nbytes for array in _views(plan, mapped).values())


def hold(plan: ProgramPlan, mapped: npt.NDArray[np.uint8]) -> ProgramPlan:
    """The program over copies of these. What operations share they share afterwards."""
    copies = {key: array.copy() for key, array in _views(plan, mapped).items()}

    def copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return copies.get(_key(array), array)

    bands = [
        replace(
            band,
            scale=copy(band.scale),
            tables=None if band.tables is None else copy(band.tables),
            bias=None if band.bias is None else copy(band.bias),
        )
        for band in plan.bands
    ]
    ops = [
        replace(op, weight=tuple(None if each is None else copy(each) for each in op.weight))
        for op in plan.ops
    ]
    return replace(plan, ops=tuple(ops), bands=tuple(bands))


def _key(array: npt.NDArray[Any]) -> tuple[int, int]:
    return int(array.ctypes.data), array.nbytes


def _views(plan: ProgramPlan, mapped: npt.NDArray[np.uint8]) -> dict[tuple[int, int], npt.NDArray[Any]]:
    begin = int(mapped.ctypes.data)
    arrays: list[npt.NDArray[Any] | None] = [weight for op in plan.ops for weight in op.weight]
    for band in plan.bands:
        arrays += [band.scale, band.tables, band.bias]
    views = {_key(array): array for array in arrays if array is not None}
    return {key: array for key, array in views.items() if begin <= key[0] < begin + mapped.nbytes}
