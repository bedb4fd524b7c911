"""The torch transforms are the NumPy ones that the runtime is built on, and carry gradients."""

import numpy as np
import pytest
import torch

from rockledge.formats import hadamard as reference
from rockledge.quantization.transforming.hadamard import hadamard, rotate, rotate_inverse


@pytest.mark.parametrize("block", [1, 2, 16, 64])
def test_hadamard_is_that_of_formats(block: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 192)).astype(np.float32)
    np.testing.assert_allclose(
        hadamard(torch.from_numpy(x), block).numpy(), reference.hadamard(x, block), atol=1e-5
    )


@pytest.mark.parametrize("width", [64, 96, 576])
def test_rotation_is_that_of_formats(width: int) -> None:
    rotation = reference.random_rotation(width, 3)
    x = np.random.default_rng(1).standard_normal((4, width)).astype(np.float32)
    turned = rotate(torch.from_numpy(x), rotation)
    np.testing.assert_allclose(turned.numpy(), rotation.forward(x), atol=1e-5)
    np.testing.assert_allclose(rotate_inverse(turned, rotation).numpy(), x, atol=1e-5)


def test_gradients_turn_back() -> None:
    rotation = reference.random_rotation(96, 0)
    x, g = torch.randn(2, 96), torch.randn(2, 96)
    x.requires_grad_(True)
    rotate(x, rotation).backward(g)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, rotate_inverse(g, rotation), atol=1e-5, rtol=1e-5)
