"""The safetensors container: a header read with every check made before any tensor is touched.

Layout: little-endian u64 length n of the header, n bytes of JSON {name: {dtype, shape, data_offsets [begin,
end)}}, then the data that the offsets count from; no overlaps and no holes.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError

_BYTES = {
    "BF16": 2,
    "F16": 2,
    "F32": 4,
    "F64": 8,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "I16": 2,
    "U16": 2,
    "I32": 4,
    "U32": 4,
    "I64": 8,
    "U64": 8,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
_FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_MAX_HEADER = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class SafetensorsEntry:
    """One tensor: type as spelt in the file, shape, and where its `size` bytes begin in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    @property
    def float_name(self) -> str | None:
        """One of "bfloat16", "float16", "float32"; None for every type that is not a plain weight."""
        return _FLOATS.get(self.dtype)


@dataclass(frozen=True)
class SafetensorsFile:
    """A checked header. `metadata` is the free-form `__metadata__`, empty when absent."""

    path: Path
    entries: dict[str, SafetensorsEntry]
    metadata: dict[str, str]

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as C-contiguous float32; CheckpointError if its type is none of BF16, F16, F32."""
        entry = self.entries[name]
        if entry.float_name is None:
            raise CheckpointError(
                f"{self.path.name}: {name} holds {entry.dtype}, expected BF16, F16 or F32: "
                "use the original, unquantised checkpoint"
            )
        raw = np.fromfile(self.path, dtype="<u1", count=entry.size, offset=entry.begin)
        if raw.size != entry.size:
            raise CheckpointError(f"{self.path.name} was cut short while {name} was read; fetch it again")
        if entry.dtype == "BF16":
            values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view("<f2" if entry.dtype == "F16" else "<f4").astype(np.float32, copy=False)
        return values.reshape(entry.shape)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Reads and checks the header of `path`; CheckpointError says what is wrong with the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if 0 <= length <= min(size - 8, _MAX_HEADER):
                text = file.read(length)
            else:
                raise CheckpointError(f"{path.name}: {_why_no_header(start, size)}")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name}: the safetensors header is not JSON; the file is damaged"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name}: the safetensors header is not an object; the file is damaged")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path.name}: __metadata__ is not an object of strings; the file is damaged")
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    _check_ranges(path, entries, 8 + length, size)
    return SafetensorsFile(path, entries, metadata)


def _why_no_header(start: bytes, size: int) -> str:
    if len(start) < 8:
        return f"only {size} bytes long, too short for safetensors; fetch it again"
    if 0 < struct.unpack(">Q", start)[0] <= min(size - 8, _MAX_HEADER):
        return "the header length is big-endian; safetensors are little-endian, so convert the file"
    return (
        f"the header claims {struct.unpack('<Q', start)[0]} bytes, more than the file or the format allows; "
        "the file is cut short or no safetensors file"
    )


def _entry(path: Path, name: str, value: Any, data: int) -> SafetensorsEntry:
    damaged = CheckpointError(f"{path.name}: the header entry of {name!r} is malformed; the file is damaged")
    if not isinstance(value, dict):
        raise damaged
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise damaged
    if dtype not in _BYTES:
        raise CheckpointError(
            f"{path.name}: {name} has the unknown type {dtype[:40]!r}; expected BF16, F16 or F32"
        )
    begin, end = offsets
    # The length is bounded first: a product of a million numbers from a hostile header would itself take for
    # ever.
    if len(shape) > 8 or end - begin != math.prod(shape) * _BYTES[dtype]:
        raise CheckpointError(
            f"{path.name}: {name} of shape {shape[:8]} and type {dtype} cannot be {end - begin} bytes long; "
            "the file is damaged"
        )
    return SafetensorsEntry(dtype, tuple(shape), data + begin, end - begin)


def _counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 63 for v in value
    )


def _check_ranges(path: Path, entries: dict[str, SafetensorsEntry], data: int, size: int) -> None:
    reached, before = data, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].size)):
        if entry.begin + entry.size > size:
            raise CheckpointError(
                f"{path.name} is cut short: {name} ends at byte {entry.begin + entry.size}, the file at "
                f"{size}; "
                "fetch it again"
            )
        if entry.begin != reached:
            kind = "overlaps" if entry.begin < reached else "leaves a hole after"
            raise CheckpointError(f"{path.name}: {name} {kind} {before}; the file is damaged")
        reached, before = entry.begin + entry.size, name
    if reached != size:
        raise CheckpointError(
            f"{path.name} has {size - reached} bytes after its last tensor; the file is damaged"
        )
