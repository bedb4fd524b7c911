"""The safetensors container: a header read with every check before any tensor is touched, and written on
pages.

Layout: eight bytes of header length (little-endian), the header (JSON {name: {dtype, shape, data_offsets
[begin, end)}}, padded with spaces), the data that the offsets count from, without overlaps and holes.
https://github.com/huggingface/safetensors describes the format. Checkpoints and artifacts are both stored so.
"""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from rockledge.errors import ArtifactError, RockledgeError
from rockledge.git_lfs import refuse_pointer
from rockledge.regular_file import open_regular

PAGE = 4096
LARGEST_HEADER = 100_000_000  # the format's own limit
ITEM_BYTES = {
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


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: its bytes are `begin .. end - 1`, counted from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header that has been checked against the length of its file."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    raw: bytes
    data_start: int
    data_bytes: int


def place(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> list[Entry]:
    """Lays (name, dtype, shape) one after another."""
    entries = []
    position = 0
    for name, dtype, shape in tensors:
        end = position + prod(shape) * ITEM_BYTES[dtype]
        entries.append(Entry(name, dtype, shape, position, end))
        position = end
    return entries


def header_bytes(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """Length and header as stored, a whole number of pages."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    for entry in entries:
        offsets = [entry.begin, entry.end]
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(table, separators=(",", ":")).encode()
    padded = text.ljust(-(-(len(text) + 8) // PAGE) * PAGE - 8)
    return struct.pack("<Q", len(padded)) + padded


def parse_json(text: bytes, what: str, error: type[RockledgeError] = ArtifactError) -> dict[str, Any]:
    """A JSON object without repeated names; `error` (naming `what`) for anything else."""
    try:
        table = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is not JSON ({cause}); the file is damaged, fetch it again") from cause
    if not isinstance(table, dict):
        raise error(f"{what} is not an object; the file is damaged, fetch it again")
    return table


def whole(value: object) -> TypeGuard[int]:
    """Whether a JSON value is an integer from 0 on (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_header(path: Path, error: type[RockledgeError] = ArtifactError) -> Header:
    """Reads and checks the header of a tensor file; raises `error`, saying what is wrong with it."""
    refuse_pointer(path, error)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, LARGEST_HEADER):
                raise error(f"{path}: {_why_no_header(start, size)}")
            raw = file.read(length)
    except OSError as cause:
        raise error(f"{path} cannot be read: {(cause.strerror or str(cause)).lower()}") from cause
    table = parse_json(raw, f"{path}: the safetensors header", error)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise error(f"{path}: __metadata__ is not an object of strings; the file is damaged, fetch it again")
    entries = {name: _entry(path, name, value, error) for name, value in table.items()}
    data = size - 8 - length
    _check_ranges(path, entries, data, error)
    return Header(entries, metadata, raw, 8 + length, data)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _why_no_header(start: bytes, size: int) -> str:
    if len(start) < 8:
        return f"only {size} bytes long, too short for safetensors; fetch it again"
    if 0 < int.from_bytes(start, "big") <= min(size - 8, LARGEST_HEADER):
        return "the header length is big-endian; safetensors are little-endian, so convert the file"
    return (
        f"the header claims {int.from_bytes(start, 'little')} bytes, more than the file or the format "
        "allows (it is cut short, or not safetensors); fetch it again"
    )


def _entry(path: Path, name: str, value: Any, error: type[RockledgeError]) -> Entry:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        raise error(f"{path}: the header entry of {name!r} is malformed; the file is damaged, fetch it again")
    if dtype not in ITEM_BYTES:
        raise error(f"{path}: {name} has unknown type {dtype[:40]!r}, expected BF16, F16 or F32; convert it")
    begin, end = offsets
    # The length is bounded first: a product of a million numbers from a hostile header would itself take for
    # ever.
    if len(shape) > 8 or end - begin != prod(shape) * ITEM_BYTES[dtype]:
        raise error(
            f"{path}: {name} of shape {shape[:8]} and type {dtype} cannot be {end - begin} bytes long; "
            "the file is damaged, fetch it again"
        )
    return Entry(name, dtype, tuple(shape), begin, end)


def _counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(whole(v) and v < 1 << 63 for v in value)


def _check_ranges(path: Path, entries: Mapping[str, Entry], data: int, error: type[RockledgeError]) -> None:
    reached, before = 0, "the header"
    for entry in sorted(entries.values(), key=lambda item: (item.begin, item.end)):
        if entry.end > data:
            raise error(
                f"{path} is cut short: {entry.name} ends at byte {entry.end} of {data} bytes of data; "
                "fetch it again"
            )
        if entry.begin != reached:
            kind = "overlaps" if entry.begin < reached else "leaves a hole after"
            raise error(f"{path}: {entry.name} {kind} {before}; the file is damaged, fetch it again")
        reached, before = entry.end, entry.name
    if reached != data:
        raise error(f"{path} has {data - reached} bytes after its last tensor; fetch it again")
