"""The container of tensors: a safetensors file whose data start on a page, checked before anything is mapped.

Layout: eight bytes of header length (little-endian), the header (JSON, padded with spaces), the data without
holes. https://github.com/huggingface/safetensors describes the format.
"""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rockledge.errors import ArtifactError

PAGE = 4096
LARGEST_HEADER = 64 << 20
ITEM_BYTES = {"U8": 1, "I8": 1, "BF16": 2, "F32": 4}


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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def parse_json(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object without repeated names; ArtifactError (naming `what`) for anything else."""
    try:
        table = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} is not valid JSON ({error}); it is damaged, fetch it again") from error
    if not isinstance(table, dict):
        raise ArtifactError(f"{what} is not a JSON object; it is damaged, fetch it again")
    return table


def whole(value: object) -> bool:
    """Whether a JSON value is an integer from 0 on (true and false are not)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(name: str, value: object, data_bytes: int, path: Path) -> Entry:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or dtype not in ITEM_BYTES
        or not isinstance(shape, list)
        or not all(map(whole, shape))
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(map(whole, offsets))
    ):
        raise ArtifactError(
            f"the header of {path} describes tensor {name!r} in an unknown way; fetch it again"
        )
    begin, end = offsets
    if not begin <= end <= data_bytes:
        raise ArtifactError(
            f"tensor {name!r} of {path} ends at byte {end} of {data_bytes} bytes of data; "
            "the file is truncated or damaged, fetch it again"
        )
    if prod(shape) * ITEM_BYTES[dtype] != end - begin:
        raise ArtifactError(
            f"tensor {name!r} of {path} has {end - begin} bytes, which contradicts its shape; fetch it again"
        )
    return Entry(name, dtype, tuple(shape), begin, end)


def read_header(path: Path) -> Header:
    """Reads and checks the header of a tensor file; raises ArtifactError for a missing or damaged one."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise ArtifactError(
                    f"{path} has {size} bytes but announces a header of {length}; fetch it again"
                )
            raw = file.read(length)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    table = parse_json(raw, f"the header of {path}")
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ArtifactError(f"the metadata of {path} is not a table of texts; it is damaged, fetch it again")
    data_bytes = size - 8 - length
    entries = {name: _entry(name, value, data_bytes, path) for name, value in table.items()}
    position = 0
    for entry in sorted(entries.values(), key=lambda item: (item.begin, item.end)):
        if entry.begin != position:
            raise ArtifactError(
                f"tensor {entry.name!r} of {path} overlaps another or leaves a hole before it; fetch it again"
            )
        position = entry.end
    if position != data_bytes:
        raise ArtifactError(f"{path} has {data_bytes} bytes of data, expected {position}; fetch it again")
    return Header(entries, metadata, raw, 8 + length, data_bytes)
