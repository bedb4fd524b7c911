"""Orthogonal mixing: the fast transform is SciPy's Hadamard matrix, and rotations undo themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard as hadamard_matrix

from rockledge.errors import UsageError
from rockledge.formats.hadamard import hadamard, power_of_two_block, random_rotation


@given(st.integers(0, 7), st.integers(1, 5), st.integers(0, 1000))
def test_the_transform_is_the_hadamard_matrix_in_blocks(power, blocks, seed):
    block = 1 << power
    x = np.random.default_rng(seed).standard_normal((3, blocks * block)).astype(np.float32)
    expected = x.reshape(3, blocks, block) @ hadamard_matrix(block) / np.sqrt(block)
    assert np.allclose(hadamard(x, block), expected.reshape(x.shape), atol=1e-5)


@given(st.integers(1, 300), st.integers(0, 1000))
def test_a_rotation_keeps_lengths_and_has_an_inverse(width, seed):
    rotation = random_rotation(width, seed)
    assert rotation.width == width
    x = np.random.default_rng(seed).standard_normal((4, width)).astype(np.float32)
    turned = rotation.forward(x)
    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1), rtol=1e-4)
    assert np.allclose(rotation.inverse(turned), x, atol=1e-4)


def test_forward_is_signs_then_hadamard_then_mix():
    rotation = random_rotation(12, 3)
    assert (rotation.block, rotation.odd) == (4, 3)
    x = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    blocks = (x * rotation.signs).reshape(3, 4) @ hadamard_matrix(4) / 2
    expected = [sum(blocks[j] * rotation.mix[j, i] for j in range(3)) for i in range(3)]
    assert np.allclose(rotation.forward(x), np.concatenate(expected), atol=1e-5)


def test_rotation_spreads_one_large_channel():
    x = np.zeros(576, np.float32)
    x[17] = 24.0
    assert np.abs(random_rotation(576, 0).forward(x)).max() < 4.0


@pytest.mark.parametrize(
    "width, limit, block",
    [(576, None, 64), (1536, 512, 512), (14336, 512, 512), (208, 512, 16), (7, None, 1)],
)
def test_blocks_are_the_largest_powers_of_two(width, limit, block):
    assert power_of_two_block(width, limit) == block


@pytest.mark.parametrize("block", [0, 3, 16])
def test_blocks_that_do_not_fit_are_refused(block):
    with pytest.raises(UsageError):
        hadamard(np.ones(24, np.float32), block)
