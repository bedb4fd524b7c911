"""Where each element of a matrix lies in the NPU's native layouts: pack and unpack, plain NumPy.

A matmul C[M, N] = A[M, K] x B[N, K] transposed is a 1 x 1 convolution of K input channels, N kernels and M
pixels. The unit of memory is an atom of 16 bytes, which holds a few neighbouring channels of one pixel:

    A  [K / a][M][a]                with a input channels in an atom
    B  [N / group][K / run][group][run]    kernels of one group together, `run` inputs of each side by side
    C  [N / c][M][c]                with c output channels in an atom (4 for four-byte sums)

Pieces of K are therefore contiguous in A, blocks of kernels contiguous in B and in C: a tile of columns, or a
part of the inputs, is an offset. Marks: [H] hardware-proven; all sources agree on these layouts.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError

ATOM_BYTES = 16
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Native:
    """The native layout of one input type: sizes in elements.

    `atom` input channels fill 16 bytes; the array makes `group` output channels together; `run` inputs of one
    kernel lie side by side.
    """

    atom: int
    group: int
    run: int


# [H] for every row: MTX, GRU, ALB and HAP agree, and so does the closed library's header.
NATIVE = {
    "int4": Native(atom=32, group=64, run=32),
    "int8": Native(atom=16, group=32, run=32),
    "int16": Native(atom=8, group=16, run=32),
    "fp16": Native(atom=8, group=16, run=32),
    "bf16": Native(atom=8, group=16, run=32),
    "tf32": Native(atom=4, group=16, run=16),
}
INT8 = NATIVE["int8"]
SUMS_IN_ATOM = ATOM_BYTES // 4  # int32 sums of neighbouring columns that share an atom


def padded(size: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `size`."""
    return -(-size // multiple) * multiple


def pack_cube(x: npt.NDArray[Scalar], channels_in_atom: int) -> npt.NDArray[Scalar]:
    """The bytes of A or C: flat, [channels / c][pixels][c] of `x` [pixels, channels], c = `channels_in_atom`.

    Raises UsageError when c does not divide the channels: pad them first (`pad`).
    """
    pixels, channels = x.shape
    _divides(channels_in_atom, channels, "channels of a cube")
    atoms = x.reshape(pixels, channels // channels_in_atom, channels_in_atom)
    return atoms.transpose(1, 0, 2).reshape(-1)


def unpack_cube(
    flat: npt.NDArray[Scalar], pixels: int, channels: int, channels_in_atom: int
) -> npt.NDArray[Scalar]:
    """The inverse of `pack_cube`: [pixels, channels] of the first pixels x channels elements of `flat`."""
    _divides(channels_in_atom, channels, "channels of a cube")
    _enough(flat, pixels * channels)
    atoms = flat[: pixels * channels].reshape(channels // channels_in_atom, pixels, channels_in_atom)
    return atoms.transpose(1, 0, 2).reshape(pixels, channels)


def pack_kernels(b: npt.NDArray[Scalar], native: Native) -> npt.NDArray[Scalar]:
    """The bytes of B: flat, [N / group][K / run][group][run] of `b` [N, K] (rows are output channels).

    Raises UsageError when group does not divide N or run does not divide K: pad them first (`pad`).
    """
    rows, cols = b.shape
    _divides(native.group, rows, "kernels")
    _divides(native.run, cols, "inputs of a kernel")
    tiles = b.reshape(rows // native.group, native.group, cols // native.run, native.run)
    return tiles.transpose(0, 2, 1, 3).reshape(-1)


def pad(x: npt.NDArray[Scalar], rows: int, cols: int) -> npt.NDArray[Scalar]:
    """`x` with zeros added below and to the right, [rows, cols]; itself when nothing is missing."""
    if x.shape == (rows, cols):
        return x
    wide = np.zeros((rows, cols), x.dtype)
    wide[: x.shape[0], : x.shape[1]] = x
    return wide


def _divides(part: int, whole: int, what: str) -> None:
    if whole % part:
        raise UsageError(
            f"{whole} {what} do not fill the native layout; pad them with zeros to {padded(whole, part)}, "
            f"a multiple of {part}"
        )


def _enough(flat: npt.NDArray[Any], elements: int) -> None:
    if flat.size < elements:
        raise UsageError(
            f"a buffer of {flat.size} elements, expected at least {elements}; give the whole of it"
        )
