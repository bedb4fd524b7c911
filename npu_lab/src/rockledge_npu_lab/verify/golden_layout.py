"""Operands of golden cases as bytes: layouts as the cases state them in words, read literally.

Nothing here comes from the package's own layouts or addressing, so that each checks the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu import isa

Floats = NDArray[np.float64]

_NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "int8": np.dtype("<i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "fp16": np.dtype("<f2"),
    "tf32": np.dtype("<f4"),
    "fp32": np.dtype("<f4"),
}


@dataclass(frozen=True)
class Placed:
    """An operand or result: its bytes, and where its elements [rows, columns] lie among them.

    `places` are element indices (nibbles for int4).
    """

    kind: str
    size: int
    places: NDArray[np.int64]


def feature_layout(text: str, kind: str, rows: int, columns: int) -> Placed:
    """Where A (or an image cube) lies: "[K/16][M][16] int8", or "row-major [M][384] fp16, ..."."""
    if text.startswith("row-major"):
        return _row_major(text, kind, rows, columns)
    found = re.match(r"\[\w+/(\d+)\]\[[\w*]+\]\[(\d+)\]", text)
    if not found or found[1] != found[2]:
        raise NpuError(f"the layout {text!r} is not known, expected [K/c][M][c] or row-major [M][pitch]")
    return _cube(int(found[1]), kind, rows, columns)


def kernel_layout(text: str, kind: str, kernels: int, inputs: int) -> Placed:
    """Where B lies: "[N/16][K/32][16][32] fp16", by option "with K padded to 160, N padded to 160"."""
    found = re.match(r"\[N/(\d+)\]\[K/(\d+)\]\[(\d+)\]\[(\d+)\]", text)
    if not found or (found[1], found[2]) != (found[3], found[4]):
        raise NpuError(f"the layout {text!r} is not known, expected [N/g][K/r][g][r]")
    group, run = int(found[1]), int(found[2])
    padded = re.search(r"K padded to (\d+), N padded to (\d+)", text)
    all_inputs, all_kernels = (int(padded[1]), int(padded[2])) if padded else (inputs, kernels)
    all_inputs, all_kernels = up(max(all_inputs, inputs), run), up(max(all_kernels, kernels), group)
    n, k = np.arange(kernels)[:, None], np.arange(inputs)[None, :]
    places = ((n // group * (all_inputs // run) + k // run) * group + n % group) * run + k % run
    return Placed(kind, _bytes(kind, all_inputs * all_kernels), places)


def result_layout(text: str, kind: str, rows: int, columns: int) -> Placed:
    """Where C lies: a cube, row-major, or "row pitch 128 elements; channel c at (c/16)*32 + c%16"."""
    found = re.match(r"row pitch (\d+) elements; channel c at \(c/(\d+)\)\*(\d+) \+ c%(\d+)", text)
    if not found:
        return feature_layout(text, kind, rows, columns)
    pitch, run, step = int(found[1]), int(found[2]), int(found[3])
    if run != int(found[4]) or run < 1:
        raise NpuError(f"the layout {text!r} is not known: its two runs differ")
    m, c = np.arange(rows)[:, None], np.arange(columns)[None, :]
    places = m * pitch + c // run * step + c % run
    return Placed(kind, _bytes(kind, int(places.max()) + 1), places)


def encode(values: Floats, placed: Placed) -> NDArray[np.uint8]:
    """The bytes of an operand; what belongs to no element is 0."""
    if placed.kind == "int4":
        nibbles = np.zeros(2 * placed.size, np.uint8)
        nibbles[placed.places] = values.astype(np.int8) & 0xF
        return (nibbles[0::2] | nibbles[1::2] << 4).astype(np.uint8)
    if placed.kind == "bf16":
        stored: NDArray[Any] = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        stored = values.astype(_NUMPY[placed.kind])
    flat = np.zeros(placed.size // stored.dtype.itemsize, stored.dtype)
    flat[placed.places] = stored
    return flat.view(np.uint8)


def decode(data: NDArray[np.uint8], placed: Placed) -> Floats:
    """The elements of a result, as float64."""
    if placed.kind == "bf16":
        wide = data.view(np.uint16)[placed.places].astype(np.uint32) << 16
        return wide.view(np.float32).astype(np.float64)
    return data.view(_NUMPY[placed.kind])[placed.places].astype(np.float64)


def _cube(atom: int, kind: str, rows: int, columns: int) -> Placed:
    m, k = np.arange(rows)[:, None], np.arange(columns)[None, :]
    places = k // atom * rows * atom + m * atom + k % atom
    return Placed(kind, _bytes(kind, rows * up(columns, atom)), places)


def _row_major(text: str, kind: str, rows: int, columns: int) -> Placed:
    found = re.match(r"row-major \[\w+\]\[(\d+)\]", text)
    if not found or int(found[1]) < columns:
        raise NpuError(f"the layout {text!r} is not known, expected row-major [M][pitch], pitch >= {columns}")
    places = np.arange(rows)[:, None] * int(found[1]) + np.arange(columns)[None, :]
    return Placed(kind, _bytes(kind, rows * int(found[1])), places)


def up(value: int, multiple: int) -> int:
    """The least multiple that is not below the value."""
    return -(-value // multiple) * multiple


def _bytes(kind: str, elements: int) -> int:
    return elements * isa.PRECISIONS[kind].bits // 8
