"""Orthogonal mixing: the blockwise fast Hadamard transform, and the residual rotation made of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.errors import UsageError

Float32 = npt.NDArray[np.float32]
FFN_BLOCK_LIMIT = 512  # a longer block mixes little better and costs more adds a token


def power_of_two_block(width: int, limit: int | None = None) -> int:
    """The largest power of two that divides `width`, at most `limit`."""
    block = width & -width
    return block if limit is None else min(block, limit)


def hadamard(x: Float32, block: int) -> Float32:
    """Normalised Hadamard transform of every run of `block` values of the last axis; its own inverse.

    `block` is a power of two that divides the last axis. y = x H / sqrt(block), H in Sylvester's order.
    """
    if block < 1 or block & (block - 1) or x.shape[-1] % block:
        raise UsageError(
            f"a Hadamard block of {block} does not fit a width of {x.shape[-1]}; "
            "use a power of two that divides it"
        )
    y = np.array(x, np.float32).reshape(-1, block)
    half = 1
    while half < block:
        pairs = y.reshape(-1, block // (2 * half), 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        y = np.stack([left + right, left - right], axis=2).reshape(-1, block)
        half *= 2
    return (y * np.float32(1.0 / np.sqrt(block))).reshape(x.shape)


@dataclass(frozen=True)
class Rotation:
    """An orthogonal matrix Q of size odd * block: signs, Hadamard within blocks, then a mix of the blocks.

    `signs` fp32 [odd * block] of +-1, `mix` fp32 [odd, odd] orthogonal ([[1]] when odd is 1).
    """

    block: int
    odd: int
    signs: Float32
    mix: Float32

    @property
    def width(self) -> int:
        """Channels it turns."""
        return self.block * self.odd

    def forward(self, x: Float32) -> Float32:
        """x Q along the last axis: y[i] = sum_j hadamard(x * signs)[j] mix[j, i] over blocks i, j."""
        y = hadamard(np.asarray(x, np.float32) * self.signs, self.block)
        blocks = y.reshape(*x.shape[:-1], self.odd, self.block)
        return np.asarray(np.swapaxes(self.mix, 0, 1) @ blocks, np.float32).reshape(x.shape)

    def inverse(self, x: Float32) -> Float32:
        """x Q^T along the last axis."""
        blocks = np.asarray(x, np.float32).reshape(*x.shape[:-1], self.odd, self.block)
        y = np.asarray(self.mix @ blocks, np.float32).reshape(x.shape)
        return hadamard(y, self.block) * self.signs


def random_rotation(width: int, seed: int) -> Rotation:
    """A rotation of `width` channels with random signs and, unless width is a power of two, a random mix."""
    generator = np.random.default_rng(seed)
    block = power_of_two_block(width)
    odd = width // block
    signs = generator.choice(np.array([-1.0, 1.0], np.float32), size=width)
    if odd == 1:
        return Rotation(block, odd, signs, np.ones((1, 1), np.float32))
    # Q of a Gaussian matrix is uniform over the orthogonal matrices once R's diagonal is made positive.
    q, r = np.linalg.qr(generator.standard_normal((odd, odd)))
    return Rotation(block, odd, signs, (q * np.sign(np.diag(r))).astype(np.float32))
