"""Weights in a safetensors file as float32; `rockledge.tensor_file` reads and checks the container."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rockledge.errors import CheckpointError
from rockledge.tensor_file import ITEM_BYTES, Header, read_header

_FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_BLOCK = 1 << 22  # values that `blocks` decodes at a time


@dataclass(frozen=True)
class SafetensorsFile:
    """A file whose header is checked."""

    path: Path
    header: Header

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return self.header.entries[name].shape

    def dtype(self, name: str) -> str:
        """Type of a tensor as the file spells it."""
        return self.header.entries[name].dtype

    def float_name(self, name: str) -> str | None:
        """One of "bfloat16", "float16", "float32"; None for every type that is not a plain weight."""
        return _FLOATS.get(self.dtype(name))

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor as C-contiguous float32; CheckpointError if its type is none of BF16, F16, F32."""
        shape = self.shape(name)
        return self._values(name, 0, prod(shape)).reshape(shape)

    def rows(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        """Rows `first` .. `first + count - 1` of a matrix as C-contiguous float32 [count, inputs]."""
        inputs = self.shape(name)[-1]
        return self._values(name, first * inputs, count * inputs).reshape(count, inputs)

    def blocks(self, name: str) -> Iterator[npt.NDArray[np.float32]]:
        """The values of a tensor in order, a few million at a time."""
        count = prod(self.shape(name))
        return (self._values(name, first, min(_BLOCK, count - first)) for first in range(0, count, _BLOCK))

    def _values(self, name: str, first: int, count: int) -> npt.NDArray[np.float32]:
        entry = self.header.entries[name]
        if entry.dtype not in _FLOATS:
            raise CheckpointError(
                f"{self.path.name}: {name} holds {entry.dtype}, expected BF16, F16 or F32; "
                "use the original, unquantised checkpoint"
            )
        item = ITEM_BYTES[entry.dtype]
        begin = self.header.data_start + entry.begin + first * item
        raw = np.fromfile(self.path, dtype="<u1", count=count * item, offset=begin)
        if raw.size != count * item:
            raise CheckpointError(f"{self.path.name} was cut short while {name} was read; fetch it again")
        if entry.dtype == "BF16":
            return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        return raw.view("<f2" if entry.dtype == "F16" else "<f4").astype(np.float32, copy=False)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Reads and checks the header of `path`; CheckpointError says what is wrong with the file."""
    return SafetensorsFile(path, read_header(path, CheckpointError))
