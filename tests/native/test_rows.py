"""Row operations of the native core: against NumPy, and bit for bit between the kernels."""

import numpy as np
import pytest
from tests.native.one_op import (
    NO_CACHE,
    float_buffer,
    int8_buffer,
    native_bands,
    open_step,
    random_linear,
    run_row_op,
    step_of,
    supported_kernels,
)

from rockledge.formats.activations import dequantize_activations, quantize_activations
from rockledge.formats.hadamard import hadamard, random_rotation
from rockledge.runtime import native
from rockledge.runtime.native import Activation, OpCode

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


@pytest.mark.parametrize("code", [OpCode.QUANT, OpCode.NORM_QUANT])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(
    "width,block", [(8, 8), (12, 4), (37, 1), (96, 2), (96, 32), (640, 128), (1536, 512)]
)
def test_blocks_are_transformed_before_they_are_rounded(
    code: OpCode, planes: int, width: int, block: int
) -> None:
    x, gain = rows_of(width), np.random.default_rng(2).normal(1, 0.2, width)
    exact = x.astype(np.float64)
    if code is OpCode.NORM_QUANT:
        exact = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-6) * gain
    matrix = hadamard(np.eye(block), block)
    exact = (exact.reshape(len(x), -1, block) @ matrix).reshape(x.shape)
    outputs = [int8_buffer(width, 1, planes), float_buffer(1, 2)]
    weight = (gain.astype(np.float32),) if code is OpCode.NORM_QUANT else ()
    results = [
        run_row_op(code, x, outputs, kernel=kernel, dim=(block,), real=(1e-6,), weight=weight, threads=3)
        for kernel in KERNELS
    ]
    q, scale = results[0]
    found = dequantize_activations(q[:, :, :width], scale[:, 0])
    largest = np.abs(exact).max(axis=1, keepdims=True)
    assert (np.abs(found - exact) <= (0.5001 / 127 if planes == 1 else 2e-5) * largest).all()
    for other_q, other_scale in results[1:]:
        assert np.array_equal(q, other_q)
        assert np.array_equal(scale, other_scale)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("with_gain", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_norm_add(width: int, with_gain: bool, in_place: bool) -> None:
    x, residual = rows_of(width), rows_of(width + 1)[:, :width]
    gain = np.random.default_rng(1).normal(1, 0.2, width).astype(np.float32) if with_gain else None
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-5)
    exact = residual + exact * (1 if gain is None else gain)
    out = 1 if in_place else 2
    op = native.Op(OpCode.NORM_ADD, (0, 1), (out,), real=(1e-5,), weight=(gain,))
    buffers, found = [float_buffer(width, slot) for slot in range(3)], []
    for kernel in KERNELS:
        program = open_step([op], [], buffers, native.Shape(5, **NO_CACHE), threads=2, kernel=kernel)
        program.buffer(0)[:], program.buffer(1)[:] = x, residual
        program.run(step_of(5))
        found.append(program.buffer(out).copy())
        program.close()
    np.testing.assert_allclose(found[0], exact, rtol=3e-6, atol=1e-6)
    for other in found[1:]:
        assert np.array_equal(found[0], other)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1.0, 0.125, 25.298221588134766])
def test_embedding_rows_are_scaled(kernel: str, scale: float) -> None:
    packed = random_linear(np.random.default_rng(0), 40, [(8, 4), (5, 8)])
    tokens = np.array([12, 0, 7, 8], np.int32)
    rows = []
    for by in (1.0, scale):
        op = native.Op(OpCode.EMBED, outputs=(0,), bands=2, real=(by,))
        shape = native.Shape(4, **NO_CACHE)
        program = open_step([op], native_bands(packed), [float_buffer(40, 0)], shape, kernel=kernel)
        program.run(step_of(4, tokens=tokens))
        rows.append(program.buffer(0).copy())
        program.close()
    assert np.array_equal(rows[1], rows[0] * np.float32(scale))


def changed_logits(
    logits: np.ndarray, scale: float, softcap: float, *, kernel: str, threads: int = 1
) -> np.ndarray:
    """What LOGITS makes of logits fp32 [T, vocab] in place of those that a linear wrote."""
    rows, vocab = logits.shape
    bands = native_bands(random_linear(np.random.default_rng(0), 8, [(vocab, 4)]))
    ops = [
        native.Op(OpCode.LINEAR, (0, 1), (native.STEP_LOGITS,), on_logits=True, bands=1),
        native.Op(OpCode.LOGITS, (), (native.STEP_LOGITS,), on_logits=True, real=(scale, softcap)),
    ]
    buffers = [int8_buffer(8, 0), float_buffer(1, 1)]
    shape = native.Shape(rows, **NO_CACHE)
    program = open_step(ops, bands, buffers, shape, threads=threads, kernel=kernel)
    found = logits.copy()
    program.run(step_of(rows, logit_rows=np.arange(rows, dtype=np.int32)), found, first=1)
    program.close()
    return found


@pytest.mark.parametrize("vocab", [1, 37, 8192, 20001])
@pytest.mark.parametrize("scale,softcap", [(1.0, 30.0), (0.125, 0.0), (0.5, 3.0)])
def test_logits(vocab: int, scale: float, softcap: float) -> None:
    logits = np.random.default_rng(vocab).normal(0, 20, (3, vocab)).astype(np.float32)
    exact = logits.astype(np.float64) * scale
    if softcap:
        exact = softcap * np.tanh(exact / softcap)
    results = [
        changed_logits(logits, scale, softcap, kernel=kernel, threads=threads)
        for kernel in KERNELS
        for threads in (1, 3)
    ]
    np.testing.assert_allclose(results[0], exact, rtol=6e-7)
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@pytest.mark.parametrize("kernel", KERNELS)
def test_hyperbolic_tangents_are_odd_saturate_and_are_off_by_three_ulps_at_most(kernel: str) -> None:
    powers = np.concatenate([-np.logspace(-44, 38, 4000), np.logspace(-44, 38, 4000)])
    dense = np.linspace(-12, 12, 100001)
    x = np.concatenate([powers, dense, [0.0, -0.0, np.inf, -np.inf, 0.625, -0.625]]).astype(np.float32)
    (found,) = changed_logits(np.stack([x]), 1.0, 1.0, kernel=kernel)
    exact = np.tanh(x.astype(np.float64))
    ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    assert (np.abs(found - exact) <= 3 * ulp).all()
    assert (np.abs(found) <= 1).all()
    assert np.array_equal(found[np.abs(x) > 10], np.sign(x[np.abs(x) > 10]))
    (mirrored,) = changed_logits(np.stack([-x]), 1.0, 1.0, kernel=kernel)
    assert np.array_equal(
        mirrored.view(np.uint32) ^ found.view(np.uint32), np.full(x.size, 1 << 31, np.uint32)
    )
    assert np.isnan(changed_logits(np.full((1, 9), np.nan, np.float32), 1.0, 1.0, kernel=kernel)).all()


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """As PyTorch documents `gelu(x, approximate="tanh")`."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("activation", Activation)
def test_gates_are_accurate_one_by_one(activation: Activation) -> None:
    # A row of its own for every gate: then its two planes hold fifteen bits of each result.
    gates = np.concatenate([np.linspace(-9, 9, 4001), [-1e4, 1e4, 0.0, 1e-20, 1e18]]).astype(np.float32)
    x = np.stack([gates, np.ones_like(gates)], axis=1)
    outputs = [int8_buffer(1, 1, 2), float_buffer(1, 2)]
    q, scale = run_row_op(OpCode.GATED_QUANT, x, outputs, kernel=KERNELS[-1], dim=(0, activation))
    found = dequantize_activations(q[:, :, :1], scale[:, 0])[:, 0]
    with np.errstate(over="ignore"):
        exact = {Activation.SILU: silu, Activation.GELU_TANH: gelu_tanh}[activation](gates.astype(np.float64))
    # Far below zero float64 itself loses digits of 1 + tanh, and the rounded exponent counts.
    np.testing.assert_allclose(found, exact, rtol=1.5e-5, atol=1e-12)


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("width,block", [(8, 0), (24, 8), (12, 4), (96, 2), (96, 32), (1536, 512), (37, 0)])
def test_gated_quant(activation: Activation, width: int, block: int) -> None:
    rng = np.random.default_rng(width)
    gate_up = rng.normal(0, 3, (9, 2 * width)).astype(np.float32)
    gate_up[0, 0], gate_up[1, 0] = -200.0, 200.0
    gate, up = gate_up[:, :width].astype(np.float64), gate_up[:, width:].astype(np.float64)
    exact = ((silu if activation is Activation.SILU else gelu_tanh)(gate) * up).astype(np.float32)
    if block:
        exact = hadamard(exact, block)
    outputs = [int8_buffer(width, 1, 2), float_buffer(1, 2)]
    results = [
        run_row_op(OpCode.GATED_QUANT, gate_up, outputs, kernel=kernel, dim=(block, activation), threads=3)
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


@pytest.mark.parametrize("width", [8, 12, 31, 576])
@pytest.mark.parametrize("code", [OpCode.GATHER, OpCode.NORM, OpCode.ROTATE])
def test_rows_are_the_result_of_a_program_without_a_head(code: OpCode, width: int) -> None:
    """The same bits as in a buffer, for the wanted rows in their order, with several threads too."""
    x, gain, rotation = rows_of(width, 40), rows_of(width, 1)[0], random_rotation(width, seed=1)
    weight = (gain,) if code is OpCode.NORM else (rotation.signs, rotation.mix, gain)
    settings = {"dim": (rotation.block, rotation.odd, 1), "real": (1e-5,), "weight": weight}
    if code is OpCode.GATHER:
        expected = x
    else:
        (expected,) = run_row_op(code, x, [float_buffer(width, 1)], kernel=KERNELS[0], **settings)
    wanted = np.array([39, 3, 17], np.int32)
    for kernel in KERNELS:
        for threads in (1, 3):
            gather = native.Op(OpCode.GATHER, (0,), (1,))
            op = native.Op(code, (1,), (native.STEP_LOGITS,), True, **settings)
            ops = [native.Op(code, (0,), (native.STEP_LOGITS,))] if code is OpCode.GATHER else [gather, op]
            buffers = [float_buffer(width, 0), float_buffer(width, 1)]
            shape = native.Shape(40, **NO_CACHE)
            program = open_step(ops, [], buffers, shape, threads=threads, kernel=kernel)
            program.buffer(0)[:] = x
            found = np.full((len(wanted), program.program.vocab), np.nan, np.float32)
            program.run(step_of(40, logit_rows=wanted), found)
            program.close()
            assert np.array_equal(found, expected[wanted])
