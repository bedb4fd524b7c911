"""Torch twins of `formats.hadamard`: the orthogonal maps that are folded into weights, differentiable and
on any device."""

from functools import lru_cache

import torch

from rockledge.formats.hadamard import Rotation

# A transform of 4096 is two products with matrices of 64: more additions than the fast transform's twelve
# passes, and a fifth of its time, because memory is read twice.
_LARGEST_MATRIX = 64

__all__ = ["hadamard", "per_head_hadamard", "rotate", "rotate_inverse"]


def hadamard(x: torch.Tensor, block: int) -> torch.Tensor:
    """Normalised Walsh-Hadamard transform of every `block` neighbours of the last axis of `x` (float, any
    shape).

    The matrix is symmetric and its own inverse. `block` is a power of two that divides the last axis; 0
    leaves `x` as it is.
    """
    if not block:
        return x
    y, inside = x, 1  # `inside` neighbours are transformed already
    while inside < block:
        size = min(_LARGEST_MATRIX, block // inside)
        matrix = _matrix(size, x.dtype, x.device)
        y = y.reshape(-1, size) @ matrix if inside == 1 else matrix @ y.reshape(-1, size, inside)
        inside *= size
    return y.reshape(x.shape)


@lru_cache(maxsize=32)
def _matrix(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The normalised Hadamard matrix [size, size] in Sylvester's order."""
    matrix: torch.Tensor = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix.mul(size**-0.5).to(dtype).to(device)


def per_head_hadamard(x: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Hadamard inside every head of the last axis: over the largest power of two that divides `head_dim`."""
    return hadamard(x, head_dim & -head_dim)


def rotate(x: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
    """`x Q` for rows `x` [..., hidden]: signs, Hadamard over each block, then the small mix across blocks.
    None leaves `x` as it is."""
    if rotation is None:
        return x
    signs = torch.as_tensor(rotation.signs, dtype=x.dtype, device=x.device)
    mix = torch.as_tensor(rotation.mix, dtype=x.dtype, device=x.device)
    blocks = hadamard(x * signs, rotation.block).reshape(*x.shape[:-1], rotation.odd, rotation.block)
    return torch.einsum("...jb,ji->...ib", blocks, mix).reshape(x.shape)


def rotate_inverse(x: torch.Tensor, rotation: Rotation | None) -> torch.Tensor:
    """`x Q^T`: undoes `rotate`."""
    if rotation is None:
        return x
    signs = torch.as_tensor(rotation.signs, dtype=x.dtype, device=x.device)
    mix = torch.as_tensor(rotation.mix, dtype=x.dtype, device=x.device)
    blocks = x.reshape(*x.shape[:-1], rotation.odd, rotation.block)
    mixed = torch.einsum("...ib,ji->...jb", blocks, mix).reshape(x.shape)
    return hadamard(mixed, rotation.block) * signs
