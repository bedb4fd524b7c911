"""Row operations of the native core: against NumPy, and bit for bit between the kernels."""

import numpy as np
import pytest
from tests.native.one_op import float_buffer, int8_buffer, run_row_op, supported_kernels

from rockledge.formats.activations import dequantize_activations, quantize_activations
from rockledge.formats.hadamard import hadamard, random_rotation
from rockledge.runtime.native import OpCode

KERNELS = supported_kernels()
WIDTHS = [1, 7, 8, 31, 64, 100, 576]


def rows_of(width: int, rows: int = 5) -> np.ndarray:
    rng = np.random.default_rng(width)
    return (rng.normal(0, 1, (rows, width)) * 10.0 ** rng.integers(-4, 4, (rows, 1))).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("width", WIDTHS)
def test_quant_equals_the_specification(kernel: str, planes: int, width: int) -> None:
    x = rows_of(width, 6)
    x[3] = 0.0
    x[4] = 1e-42  # too small for a finite inverse
    q, scale = run_row_op(
        OpCode.QUANT, x, [int8_buffer(width, 1, planes), float_buffer(1, 2)], kernel=kernel, threads=2
    )
    expected_q, expected_scale = quantize_activations(x, planes)
    assert np.array_equal(q[:, :, :width], expected_q)
    assert np.array_equal(scale[:, 0], expected_scale)
    assert not q[:, :, width:].any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quant_survives_what_is_no_number(kernel: str, value: float) -> None:
    x = rows_of(40, 2)
    x[0, 3] = value
    q, scale = run_row_op(OpCode.QUANT, x, [int8_buffer(40, 1), float_buffer(1, 2)], kernel=kernel)
    expected_q, expected_scale = quantize_activations(x[1:], 1)
    assert np.array_equal(q[1:, :, :40], expected_q)
    assert np.array_equal(scale[1:, 0], expected_scale)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("with_gain", [False, True])
def test_norm(width: int, with_gain: bool) -> None:
    x = rows_of(width)
    gain = np.random.default_rng(1).normal(1, 0.2, width).astype(np.float32) if with_gain else None
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-5)
    if gain is not None:
        exact = exact * gain
    results = [
        run_row_op(OpCode.NORM, x, [float_buffer(width, 1)], kernel=kernel, real=(1e-5,), weight=(gain,))[0]
        for kernel in KERNELS
    ]
    np.testing.assert_allclose(results[0], exact, rtol=3e-6, atol=1e-7)
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@pytest.mark.parametrize("kernel", KERNELS)
def test_norm_quant_is_norm_then_quant(kernel: str) -> None:
    x, gain = rows_of(100), rows_of(100)[0]
    outputs = [int8_buffer(100, 1, 2), float_buffer(1, 2)]
    fused = run_row_op(OpCode.NORM_QUANT, x, outputs, kernel=kernel, real=(1e-6,), weight=(gain,))
    normed = run_row_op(OpCode.NORM, x, [float_buffer(100, 1)], kernel=kernel, real=(1e-6,), weight=(gain,))[
        0
    ]
    q, scale = quantize_activations(normed, 2)
    assert np.array_equal(fused[0][:, :, :100], q)
    assert np.array_equal(fused[1][:, 0], scale)


@pytest.mark.parametrize("width,block", [(8, 0), (24, 8), (12, 4), (96, 2), (96, 32), (1536, 512), (37, 0)])
def test_silu_quant(width: int, block: int) -> None:
    rng = np.random.default_rng(width)
    gate_up = rng.normal(0, 3, (9, 2 * width)).astype(np.float32)
    gate_up[0, 0], gate_up[1, 0] = -200.0, 200.0
    gate, up = gate_up[:, :width].astype(np.float64), gate_up[:, width:].astype(np.float64)
    exact = (gate / (1 + np.exp(-gate)) * up).astype(np.float32)
    if block:
        exact = hadamard(exact, block)
    outputs = [int8_buffer(width, 1, 2), float_buffer(1, 2)]
    results = [
        run_row_op(OpCode.GATED_QUANT, gate_up, outputs, kernel=kernel, dim=(block,), threads=3)
        for kernel in KERNELS
    ]
    q, scale = results[0]
    found = dequantize_activations(q[:, :, :width], scale[:, 0])
    largest = np.abs(exact).max(axis=1, keepdims=True)
    assert (np.abs(found - exact) <= 2e-5 * largest).all()
    for other_q, other_scale in results[1:]:
        assert np.array_equal(q, other_q)
        assert np.array_equal(scale, other_scale)


@pytest.mark.parametrize("width", [1, 8, 12, 64, 96, 576, 1000])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("with_gain", [False, True])
def test_rotate(width: int, inverse: bool, with_gain: bool) -> None:
    rotation = random_rotation(width, seed=width)
    x = rows_of(width)
    gain = rows_of(width, 1)[0] if with_gain else None
    expected = rotation.inverse(x) if inverse else rotation.forward(x)
    if gain is not None:
        expected = expected * gain
    results = [
        run_row_op(
            OpCode.ROTATE,
            x,
            [float_buffer(width, 1)],
            kernel=kernel,
            dim=(rotation.block, rotation.odd, int(inverse)),
            weight=(rotation.signs, rotation.mix, gain),
        )[0]
        for kernel in KERNELS
    ]
    bound = 1e-5 * np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(results[0] - expected) <= bound).all()
    for other in results[1:]:
        assert np.array_equal(results[0], other)
