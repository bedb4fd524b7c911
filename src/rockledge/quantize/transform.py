"""Torch twins of `formats.hadamard`: the orthogonal maps that are folded into weights, differentiable and
on any device."""

import torch

from rockledge.formats.hadamard import Rotation

__all__ = ["hadamard", "per_head_hadamard", "rotate", "rotate_inverse"]


def hadamard(x: torch.Tensor, block: int) -> torch.Tensor:
    """Normalised Walsh-Hadamard transform of every `block` neighbours of the last axis of `x` (float, any
    shape).

    The matrix is symmetric and its own inverse. `block` is a power of two that divides the last axis; 0
    leaves `x` as it is.
    """
    if not block:
        return x
    shape, half = x.shape, 1
    y = x.reshape(-1, block)
    while half < block:
        pairs = y.view(-1, block // (2 * half), 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        y = torch.stack((left + right, left - right), dim=2).view(-1, block)
        half *= 2
    return y.mul(block**-0.5).reshape(shape)


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
