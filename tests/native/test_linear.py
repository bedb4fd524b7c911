"""The native linear against the NumPy specification: integers bit for bit, the epilogue's floats too."""

from dataclasses import replace

import numpy as np
import pytest
from tests.native.one_op import random_linear, run_linear, supported_kernels

from rockledge.formats.packing import unpack
from rockledge.formats.spec import integer_sums, linear

KERNELS = supported_kernels()
ROWS = [1, 2, 3, 4, 5, 7, 8, 11, 15, 33, 70]


def activations(rng: np.random.Generator, rows: int, planes: int, cols: int):
    q = rng.integers(-127, 128, (rows, planes, cols)).astype(np.int8)
    if planes == 2:
        q[:, 1] = rng.integers(-128, 128, (rows, cols))
    return q, rng.uniform(0.001, 0.1, rows).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rows", ROWS)
def test_sums_equal_the_specification(kernel: str, bits: int, rows: int) -> None:
    """With all scales 1 the floats are the sums, which fp32 holds exactly below 2^24 (1,040 inputs)."""
    rng = np.random.default_rng(bits * 100 + rows)
    for out, cols in [(1, 1), (8, 32), (13, 17), (40, 96), (61, 333)]:
        packed = replace(random_linear(rng, cols, [(out, bits)]), scale=np.ones(out, np.float32))
        q, _ = activations(rng, rows, 1, cols)
        sums = run_linear(packed, q, np.ones(rows, np.float32), kernel=kernel, threads=1 + rows % 4)
        assert np.array_equal(sums, integer_sums(q, unpack(packed))[:, 0])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("rows", ROWS)
def test_linear_equals_the_specification(kernel: str, planes: int, rows: int) -> None:
    rng = np.random.default_rng(planes * 100 + rows)
    for cols in (5, 64, 200):
        packed = random_linear(rng, cols, [(9, 4), (24, 8), (16, 3), (3, 2), (70, 4)], bias=rows % 2 == 0)
        q, sx = activations(rng, rows, planes, cols)
        residual = rng.normal(0, 1, (rows, packed.rows)).astype(np.float32) if rows % 3 else None
        y = run_linear(packed, q, sx, residual, kernel=kernel, threads=1 + rows % 3)
        assert np.array_equal(y, linear(q, sx, packed, residual))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("rows", [1, 4, 6])
def test_the_largest_sums_do_not_saturate(kernel: str, planes: int, rows: int) -> None:
    rng = np.random.default_rng(3)
    packed = random_linear(rng, 14336, [(16, 8), (8, 4)])
    w8 = unpack(packed)
    w8[:16] = 127
    packed.codes[: 16 * 14336] = 127
    q = np.full((rows, planes, 14336), -127, np.int8)
    q[:, planes - 1] = -128 if planes == 2 else -127
    q[:, 0, ::2] = 127
    q[0, 0] = -127
    sx = np.ones(rows, np.float32)
    assert np.array_equal(run_linear(packed, q, sx, kernel=kernel), linear(q, sx, packed))


@pytest.mark.parametrize("kernel", KERNELS)
def test_wide_inputs_use_smaller_blocks(kernel: str) -> None:
    rng = np.random.default_rng(4)
    packed = random_linear(rng, 30000, [(24, 4), (8, 3)])
    q, sx = activations(rng, 5, 1, 30000)
    assert np.array_equal(run_linear(packed, q, sx, kernel=kernel, threads=2), linear(q, sx, packed))
