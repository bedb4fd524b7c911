"""The first two stages and the elementwise stage in both pipelines, against plain arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu_lab import sheet
from tests.npu_lab.emulation.running import bench_for, operands, stored, taken
from tests.npu_lab.sheet import Shape

from rockledge.npu.stream import Address

INT8 = Shape("int8", "int32", 5, 64, 64, rdma=True)
FP16 = Shape("fp16", "fp32", 5, 64, 32, rdma=True)
BIAS = {"DPU_RDMA_BRDMA_CFG": 1 << 1, "DPU_RDMA_BS_BASE_ADDR": Address("operand")}


def run(shape, changes, operand=None, a=None, b=None):
    """Results, and the exact product of the operands."""
    a = operands(shape.kind, (shape.m, shape.k), 1) if a is None else a
    b = operands(shape.kind, (shape.n, shape.k), 2) if b is None else b
    bench = bench_for(shape, a, b)
    if operand is not None:
        bench.buffers["operand"] = np.ascontiguousarray(operand).view(np.uint8)
    bench.kick(sheet.program(shape, changes))
    return taken(bench.buffers["output"], shape.kind_out, sheet.output_places(shape)), a @ b.T


def fp32_bits(value: float) -> int:
    return int(np.array(value, np.float32).view(np.uint32))


def fp16_bits(value: float) -> int:
    return int(np.array(value, np.float16).view(np.uint16))


@pytest.mark.parametrize(
    ("code", "function"), [(0, np.maximum), (1, np.minimum), (2, np.add), (4, np.subtract)]
)
def test_the_alu_takes_a_vector_a_channel(code, function):
    vector = np.random.default_rng(1).integers(-(2**20), 2**20, INT8.n)
    changes = {**BIAS, "DPU_BS_CFG": code << 16 | 0x150}
    found, exact = run(INT8, changes, vector.astype(np.int32))
    np.testing.assert_array_equal(found, function(exact, vector))


@pytest.mark.parametrize("stage", ["BS", "BN"])
@pytest.mark.parametrize(
    ("code", "function"), [(0, np.maximum), (1, np.minimum), (2, np.add), (4, np.subtract)]
)
def test_the_alu_takes_a_number(stage, code, function):
    changes = {f"DPU_{stage}_CFG": code << 16 | 0x50, f"DPU_{stage}_ALU_CFG": 0xFFFFF000}
    found, exact = run(INT8, changes)
    np.testing.assert_array_equal(found, function(exact, -4096))


def test_both_stages_follow_each_other():
    changes = {
        "DPU_BS_CFG": 2 << 16 | 0x40,
        "DPU_BS_ALU_CFG": 10,
        "DPU_BS_MUL_CFG": 3 << 16,
        "DPU_BN_CFG": 2 << 16 | 0x00,
        "DPU_BN_ALU_CFG": 7,
        "DPU_BN_MUL_CFG": 0xFFFE << 16,
    }
    found, exact = run(INT8, changes)
    np.testing.assert_array_equal(found, np.maximum((exact + 10) * 3 * -2 + 7, 0))


def test_a_multiplied_sum_saturates():
    changes = {"DPU_BS_CFG": 0x42, "DPU_BS_MUL_CFG": 0x7FFF << 16}
    found, exact = run(INT8, changes)
    np.testing.assert_array_equal(found, np.clip(exact * 0x7FFF, -(2**31), 2**31 - 1))


def test_float_stages_round_at_every_step():
    changes = {
        "DPU_BS_CFG": 2 << 16 | 0x40,
        "DPU_BS_ALU_CFG": fp32_bits(0.1),
        "DPU_BS_MUL_CFG": fp16_bits(1.7) << 16,
        "DPU_BN_CFG": 0 << 16 | 0x90,
        "DPU_BN_ALU_CFG": fp32_bits(-1.5),
        "DPU_BN_RELUX_CMP": fp32_bits(20.0),
    }
    found, _ = run(FP16, changes)
    plain, _ = run(FP16, {})
    x = plain.astype(np.float32)
    x = (x + np.float32(0.1)) * np.float32(np.float16(1.7))
    # BN: the larger of x and -1.5, then ReLU (bit 6 clear) with its limit.
    expected = np.minimum(np.maximum(np.maximum(x, np.float32(-1.5)), 0), np.float32(20))
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_a_float_vector_a_channel_is_fp32():
    vector = np.random.default_rng(2).standard_normal(FP16.n).astype(np.float32)
    found, _ = run(FP16, {**BIAS, "DPU_BS_CFG": 0x20150}, vector)
    plain, _ = run(FP16, {})
    np.testing.assert_array_equal(found.astype(np.float32), plain.astype(np.float32) + vector)


def test_the_exponential_by_bits():
    # A score becomes the bits of exp(score - shift) in fp16: multiply, add, ReLU, convert to int16 (HAP).
    shape = Shape("fp16", "int16", 3, 32, 32)
    shift = 2.0
    constant = 15300.624 - 1477 * shift
    changes = {
        "DPU_DATA_FORMAT": 0x28000002,
        "DPU_BS_CFG": 0x42,
        "DPU_BS_MUL_CFG": 0x65C50000,
        "DPU_BN_CFG": 0x20010,
        "DPU_BN_ALU_CFG": fp32_bits(constant),
        "DPU_BS_OW_CFG": 0x126,
        "DPU_SURFACE_ADD": 3 * 32,
    }
    scale = np.float16(0.25)
    a = operands("fp16", (3, 32), 4)
    b = np.eye(32) * float(scale)
    found, exact = run(shape, changes, a=a, b=b)
    exponentials = found.astype(np.int16).view(np.float16).astype(np.float64)
    # Schraudolph's line stays within 6.2 % below and 6.2 % above the curve.
    np.testing.assert_allclose(exponentials, np.exp(exact - shift), rtol=0.065)
    expected = np.maximum(np.float32(exact) * np.float32(1477) + np.float32(constant), 0)
    assert np.abs(found - expected).max() <= 0.5


def elementwise(shape, ew_cfg, erdma, mode, base="operand"):
    """An operand by ERDMA alone: per channel (mode 0) or per pixel (1)."""
    surface = shape.m * 16
    return {
        "DPU_EW_CFG": ew_cfg & ~(3 << 28) | mode << 28,
        "DPU_RDMA_EW_BASE_ADDR": Address(base),
        "DPU_RDMA_ERDMA_CFG": mode << 30 | erdma,
        "DPU_RDMA_EW_SURF_STRIDE": surface,
        "DPU_RDMA_FEATURE_MODE_CFG": 0x7810,
    }


@pytest.mark.parametrize(
    ("ew_cfg", "function"),
    [
        (0x108202C0, np.add),
        (0x108002C0, np.maximum),
        (0x108102C0, np.minimum),
        (0x108402C0, np.subtract),
        (0x108003C4, np.multiply),
    ],
)
@pytest.mark.parametrize("mode", [0, 1])
def test_float_operations_with_a_tensor_or_a_vector(ew_cfg, function, mode):
    random = np.random.default_rng(5)
    rows = FP16.m if mode else 1
    operand = random.standard_normal((rows, FP16.n)).astype(np.float16)
    half = Shape("fp16", "fp16", FP16.m, FP16.k, FP16.n)
    places = sheet.output_places(half) if mode else np.arange(FP16.n)[None]
    data = stored(operand.astype(np.float64), "fp16", places)
    found, _ = run(FP16, elementwise(FP16, ew_cfg, 8, mode), data)
    plain, _ = run(FP16, {})
    expected = function(plain.astype(np.float32), operand.astype(np.float32))
    np.testing.assert_array_equal(found.astype(np.float32), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_int32_addition_beside_a_product_saturates(seed):
    operand = np.random.default_rng(seed).integers(-(2**31), 2**31, (INT8.m, INT8.n))
    data = stored(operand.astype(np.int32), "int32", sheet.output_places(INT8))
    found, exact = run(INT8, elementwise(INT8, 0x10C203C0, 12, 1), data)
    np.testing.assert_array_equal(found, np.clip(exact + operand, -(2**31), 2**31 - 1))


def test_a_saturated_addition_may_leave_as_fp32():
    shape = Shape("int8", "fp32", INT8.m, INT8.k, INT8.n, rdma=True)
    operand = np.full((INT8.m, INT8.n), 2**31 - 1)
    operand[:, ::2] = -(2**31)
    data = stored(operand.astype(np.int32), "int32", sheet.output_places(INT8))
    found, exact = run(shape, elementwise(shape, 0x10C203C0, 12, 1), data)
    expected = np.clip(exact + operand, -(2**31), 2**31 - 1).astype(np.float32)
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_int32_times_an_int16_vector():
    vector = np.random.default_rng(7).integers(-100, 100, INT8.n).astype(np.int16)
    found, exact = run(INT8, elementwise(INT8, 0x108003C4, 8, 0), vector)
    np.testing.assert_array_equal(found, np.clip(exact * vector, -(2**31), 2**31 - 1))


def test_int8_results_scaled_shifted_moved_and_saturated():
    # round(acc * scale / 2^shift) + offset, saturated; 0x4000 and 14 are the identity.
    shape = Shape("int8", "int8", 6, 64, 64)
    a, b = operands("int8", (6, 64), 1), operands("int8", (64, 64), 2)
    changes = {"DPU_OUT_CVT_SCALE": 0x418A, "DPU_OUT_CVT_SHIFT": 22, "DPU_OUT_CVT_OFFSET": 0xFFFFFFF8}
    found, exact = run(shape, changes, a=a, b=b)
    np.testing.assert_array_equal(found, np.clip(np.rint(exact * 0x418A / 2**22) - 8, -128, 127))
    small = np.zeros((6, 64))
    small[:, 0] = [-128, -5, 0, 1, 77, 127]
    found, _ = run(shape, {"DPU_OUT_CVT_SCALE": 0x4000, "DPU_OUT_CVT_SHIFT": 14}, a=small, b=np.eye(64))
    np.testing.assert_array_equal(found[:, 0], small[:, 0])


def test_strides_of_twelve_rows_with_fewer_lead_to_wrong_upper_surfaces():
    # One generator never takes a stride below twelve rows: MRDMA then steps 8 + 12 rows instead of 16.
    shape = Shape("fp16", "fp16", 8, 32, 32, rdma=True)
    operand = np.random.default_rng(9).standard_normal((8, 32)).astype(np.float16).astype(np.float64)
    size, clamped = 8 * 16, 12 * 16

    def sums(stride: int) -> np.ndarray:
        changes = {
            "DPU_EW_CFG": 0x108202C0,
            "DPU_RDMA_SRC_BASE_ADDR": Address("operand"),
            "DPU_RDMA_EW_BASE_ADDR": Address("operand", size),
            "DPU_RDMA_ERDMA_CFG": 0x40000008,
            "DPU_RDMA_EW_SURF_STRIDE": stride,
            "DPU_RDMA_SURF_NOTCH": stride,
            "DPU_RDMA_EW_SURF_NOTCH": stride,
            "DPU_RDMA_FEATURE_MODE_CFG": 0x17D40,
        }
        data = np.append(stored(operand, "fp16", sheet.output_places(shape)), np.zeros(512, np.uint8))
        return run(shape, changes, data)[0]

    right, wrong = sums(size), sums(clamped)
    exact = operands("fp16", (8, 32), 1) @ operands("fp16", (32, 32), 2).T + operand
    np.testing.assert_allclose(right, exact, atol=0.02)
    # The first surface of each DMA is where it should be, the second is not.
    np.testing.assert_array_equal(wrong[:, :16], right[:, :16])
    assert np.abs(wrong[:, 16:] - right[:, 16:]).max() > 0.1
