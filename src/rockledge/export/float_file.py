"""A safetensors file of floats, written tensor by tensor; its whole space is taken at once."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.artifact.publish import writing
from rockledge.errors import UsageError
from rockledge.tensor_file import header_bytes, place

TYPES: Final = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
"""Types that a tensor may have, as flags and as the format spell them."""


def rounded_bytes(values: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.uint8]:
    """fp32 values as the bytes of "bf16", "f16" or "f32", rounded to the nearest, ties to even. UsageError
    where a value is too large for the type."""
    values = np.ascontiguousarray(values, np.float32)
    if kind == "f16":
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise UsageError("a weight is too large for f16; export with --type bf16")
        return halves.reshape(-1).view(np.uint8)
    if kind == "bf16":
        bits = values.view(np.uint32)
        # Half of what is cut off, less one where the last bit that stays is even.
        bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (bits >> np.uint32(16)).astype(np.uint16).reshape(-1).view(np.uint8)
    return values.reshape(-1).view(np.uint8)


class FloatFile:
    """A new safetensors file at `path`; `tensors` are (name, shape) in the order of the file, all of `kind`.
    `shown` is the place that errors name. UnwritableError where the disk is full."""

    def __init__(
        self, path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]], kind: str, shown: Path
    ) -> None:
        self._kind, self._shown = kind, shown
        entries = place((name, TYPES[kind], shape) for name, shape in tensors)
        header = header_bytes(entries, {"format": "pt"})
        self._start, self._entries = len(header), {entry.name: entry for entry in entries}
        with writing(shown):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.posix_fallocate(self._descriptor, 0, self._start + entries[-1].end)
                self._put(memoryview(header), 0)
            except BaseException:
                os.close(self._descriptor)
                raise

    def __enter__(self) -> "FloatFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with writing(self._shown):
                    os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def write(self, name: str, values: npt.NDArray[np.float32], first: int = 0) -> None:
        """fp32 `values` as the rows of the tensor `name` from row `first` on."""
        data = rounded_bytes(values, self._kind)
        row = data.size // values.shape[0]
        with writing(self._shown):
            self._put(memoryview(data.data), self._start + self._entries[name].begin + first * row)

    def _put(self, data: memoryview, at: int) -> None:
        while len(data):
            done = os.pwrite(self._descriptor, data, at)
            data, at = data[done:], at + done
