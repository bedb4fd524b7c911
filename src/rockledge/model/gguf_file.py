"""The GGUF container (versions 2 and 3): a header read within bounds, tensors dequantised on demand.

Layout: "GGUF", u32 version, u64 tensors, u64 pairs; then key/value pairs (string, u32 type, value), tensor
infos (string, u32 dimensions, u64 each fastest first, u32 type, u64 offset), padding to the alignment, data.
"""

import math
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.git_lfs import refuse_pointer
from rockledge.regular_file import open_regular

_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
# Types that older versions of llama.cpp wrote and newer ones do not read (`enum ggml_type` in ggml.h).
_REMOVED = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
_MAX_DIMENSIONS = 4
_BLOCK = 1 << 24  # bytes that `blocks` reads at a time


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: its file, type name such as "Q4_1", shape slowest first as in NumPy, where its `size` bytes
    begin."""

    path: Path
    kind: str
    code: int
    shape: tuple[int, ...]
    begin: int
    size: int


@dataclass(frozen=True)
class GgufFile:
    """A checked header: metadata as plain Python values, and the tensor table (of all parts, where a model is
    split over several files)."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def holds(self, name: str) -> bool:
        """Whether the file goes on to the end of a tensor, which one cut off after its header does not."""
        tensor = self.tensors[name]
        return tensor.begin + tensor.size <= tensor.path.stat().st_size

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor dequantised to C-contiguous float32 [shape]."""
        tensor = self.tensors[name]
        rows = math.prod(tensor.shape[:-1])
        return self.rows(name, 0, rows).reshape(tensor.shape)

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        """Rows `first` .. `first + count - 1` of a tensor, dequantised: C-contiguous float32 [count, inputs].
        Rows are whole blocks."""
        import gguf

        tensor = self.tensors[name]
        row = tensor.size // math.prod(tensor.shape[:-1])
        raw = _raw(name, tensor, first * row, count * row)
        # Damaged scales may overflow to infinity here; the reader refuses what is not finite.
        with np.errstate(all="ignore"):
            # As rows, because the package works on a few rows at a time and so needs little memory beside the
            # result.
            values = gguf.quants.dequantize(raw.reshape(count, row), gguf.GGMLQuantizationType(tensor.code))
        return np.ascontiguousarray(values, dtype=np.float32)

    def blocks(self, name: str) -> Iterator[npt.NDArray[np.uint8]]:
        """The stored bytes of a tensor in order, a few million at a time."""
        tensor = self.tensors[name]
        return (
            _raw(name, tensor, first, min(_BLOCK, tensor.size - first))
            for first in range(0, tensor.size, _BLOCK)
        )


def _raw(name: str, tensor: GgufTensor, first: int, count: int) -> npt.NDArray[np.uint8]:
    raw = np.fromfile(tensor.path, dtype=np.uint8, count=count, offset=tensor.begin + first)
    if raw.size != count:
        raise CheckpointError(f"{tensor.path.name} was cut short while {name} was read; fetch it again")
    return raw


def open_gguf(path: Path, *, header_alone: bool = False) -> GgufFile:
    """Reads and checks the header of `path`; CheckpointError says what is wrong with the file. With
    `header_alone` tensors may be cut off."""
    refuse_pointer(path, CheckpointError)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24:
                raise CheckpointError(
                    f"{path.name} is only {size} bytes long, too short for GGUF; fetch it again"
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _parse(path, _Cursor(path, view, size), whole=not header_alone)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error


class _Cursor:
    """A position in the file that refuses to step past its end: no count in the file is trusted."""

    def __init__(self, path: Path, view: mmap.mmap, size: int) -> None:
        self.path, self.view, self.size, self.at = path, view, size, 0

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path.name}: {what} (near byte {self.at}), so it is damaged or cut short; fetch it again"
        )

    def take(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise self.damaged(f"{count} more bytes are announced than the file has")
        self.at += count
        return self.view[self.at - count : self.at]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> str:
        return self.take(self.number("<Q")).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise self.damaged(f"unknown metadata type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def array(self) -> list[Any]:
        kind, count = self.number("<I"), self.number("<Q")
        if kind == _STRING:
            if count > (self.size - self.at) // 8:
                raise self.damaged(f"an array of {count} strings cannot fit")
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            raise self.damaged(f"an array of metadata type {kind} is not known")
        dtype = np.dtype(_SCALARS[kind])
        return list(np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist())


def _parse(path: Path, cursor: _Cursor, *, whole: bool) -> GgufFile:
    if cursor.take(4) != b"GGUF":
        raise CheckpointError(
            f"{path.name} is not a GGUF file; give one, or the directory that holds the safetensors"
        )
    version = cursor.number("<I")
    if version & 0xFFFF == 0:
        raise CheckpointError(f"{path.name} is a big-endian GGUF file; convert it to little-endian")
    if version not in (2, 3):
        raise CheckpointError(f"{path.name} is GGUF version {version}, expected 2 or 3; convert it again")
    tensor_count, pair_count = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in _bounded(cursor, pair_count, 13, "metadata pairs"):
        key = cursor.text()
        if key in metadata:
            raise cursor.damaged(f"the metadata key {key[:60]!r} appears twice")
        metadata[key] = cursor.value(cursor.number("<I"))
    infos = [_tensor_info(cursor) for _ in _bounded(cursor, tensor_count, 24, "tensors")]
    alignment = metadata.get("general.alignment", 32)
    whole_number = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole_number or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise cursor.damaged(f"the alignment {alignment!r} is not a power of two")
    data = -(-cursor.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, code, offset in infos:
        if name in tensors:
            raise cursor.damaged(f"the tensor {name[:60]!r} appears twice")
        tensors[name] = _tensor(path, name, shape, code, data, offset, alignment)
    if whole:
        _check_ranges(path, tensors, cursor.size)
    return GgufFile(path, metadata, tensors)


def _bounded(cursor: _Cursor, count: int, least: int, what: str) -> Iterator[int]:
    """`count` steps, after checking that so many things of at least `least` bytes each can still follow."""
    if count > (cursor.size - cursor.at) // least:
        raise cursor.damaged(f"{count} {what} are announced, more than can fit")
    return iter(range(count))


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, dimensions = cursor.text(), cursor.number("<I")
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise cursor.damaged(f"the tensor {name[:60]!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("<Q") for _ in range(dimensions))[::-1]
    return name, shape, cursor.number("<I"), cursor.number("<Q")


def _tensor(
    path: Path, name: str, shape: tuple[int, ...], code: int, data: int, offset: int, alignment: int
) -> GgufTensor:
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(code)
    except ValueError as error:
        if code in _REMOVED:
            raise CheckpointError(
                f"{path.name}: {name[:60]} has the type {_REMOVED[code]}, which llama.cpp no longer reads "
                "either; fetch a file of another type, such as Q4_0 or Q8_0"
            ) from error
        raise CheckpointError(
            f"{path.name}: {name[:60]} has the unknown tensor type {code}; fetch a file of another type"
        ) from error
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if min(shape) < 1 or shape[-1] % block:
        raise CheckpointError(
            f"{path.name}: {name[:60]} of shape {list(shape)} cannot be {kind.name}; fetch it again"
        )
    if offset % alignment:
        raise CheckpointError(f"{path.name}: {name[:60]} is not aligned to {alignment} bytes; fetch it again")
    return GgufTensor(path, kind.name, code, shape, data + offset, math.prod(shape) // block * size)


def _check_ranges(path: Path, tensors: dict[str, GgufTensor], size: int) -> None:
    reached, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
        end = tensor.begin + tensor.size
        if end > size:
            raise CheckpointError(
                f"{path.name} is cut short: {name[:60]} ends at byte {end}, the file at {size}; fetch it "
                f"again"
            )
        if tensor.begin < reached:
            raise CheckpointError(f"{path.name}: {name[:60]} overlaps {before[:60]}; fetch it again")
        reached, before = end, name


def can_dequantise(code: int) -> bool:
    """Whether the gguf package can turn tensors of this type into floats (tried on one block of zeros)."""
    import gguf

    kind = gguf.GGMLQuantizationType(code)
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
