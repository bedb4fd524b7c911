"""A safetensors file of floats, written tensor by tensor; its whole space is taken at once."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rockledge.artifact.placed_file import PlacedFile
from rockledge.errors import UsageError

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


class FloatFile(PlacedFile):
    """A new safetensors file at `path`; `tensors` are (name, shape) in the order of the file, all of `kind`.
    `shown` is the place that errors name. UnwritableError where the disk is full."""

    def __init__(
        self, path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]], kind: str, shown: Path
    ) -> None:
        self._kind = kind
        super().__init__(path, [(name, TYPES[kind], shape) for name, shape in tensors], shown)

    def write_rows(self, name: str, values: npt.NDArray[np.float32], first: int = 0) -> None:
        """fp32 `values` as the rows of the tensor `name` from row `first` on."""
        data = rounded_bytes(values, self._kind)
        self.write(name, data.data, first * (data.size // values.shape[0]))
