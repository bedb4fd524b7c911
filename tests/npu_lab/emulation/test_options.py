"""Every switch changes what it says, and its default is what the evidence suggests."""

import numpy as np
import pytest
from tests.npu_lab import sheet
from tests.npu_lab.emulation.running import bench_for, operands, stored, taken
from tests.npu_lab.sheet import Shape

from rockledge.errors import NpuError
from rockledge.npu.stream import Address, build, chain
from rockledge_npu_lab.emulation import options as o
from rockledge_npu_lab.emulation.faults import StreamError
from rockledge_npu_lab.emulation.options import Options


def run(shape, a, b, changes=None, options=o.DEFAULT, buffers=None):
    """Results of a program with changed registers, and what came of the kick."""
    bench = bench_for(shape, np.asarray(a, np.float64), np.asarray(b, np.float64), options)
    bench.buffers.update(buffers or {})
    done = bench.kick(sheet.program(shape, changes))
    return taken(bench.buffers["output"], shape.kind_out, sheet.output_places(shape)), done


def through(values, changes=None, options=o.DEFAULT):
    """The integers as they leave the DPU when the product gives `values` (at most 32, one a channel)."""
    b = np.zeros((32, 32))
    # Each value as a sum of up to 32 inputs of int8, times 1 and (for what is larger) times 127.
    for row, value in enumerate(values):
        large = np.fix(value / 127)
        for k in range(16):
            b[row, k] = np.clip(large, -128, 127)
            large -= b[row, k]
        b[row, 16] = value - 127 * np.fix(value / 127)
    a = np.array([[127] * 16 + [1] + [0] * 15])
    found, done = run(Shape("int8", "int32", 1, 32, 32), a, b, changes, options)
    return found[0, : len(values)].tolist(), done


TIES = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("how", "bit_30", "halves"),
    [
        (o.Rounding.TIES_EVEN, 0, [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]),
        (o.Rounding.TIES_UP, 0, [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3]),
        (o.Rounding.TRUNCATE, 0, [-3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2]),
        (o.Rounding.TIES_EVEN, 1, [-3, -2, -2, -1, -1, 0, 1, 1, 2, 2, 3]),
        (o.Rounding.TRUNCATE, 1, [-3, -2, -2, -1, -1, 0, 1, 1, 2, 2, 3]),
    ],
)
def test_requantising_rounds_as_asked(how, bit_30, halves):
    changes = {"DPU_OUT_CVT_SHIFT": bit_30 << 30 | 1}
    assert through(TIES, changes, Options(requantise=how))[0] == halves


def test_ties_to_even_is_the_default():
    assert o.DEFAULT.requantise is o.Rounding.TIES_EVEN
    assert through([1, 3], {"DPU_OUT_CVT_SHIFT": 1})[0] == [0, 2]


BIAS = {"DPU_BS_CFG": 2 << 16 | 0x50, "DPU_BS_ALU_CFG": 2**31 - 1}


def test_int32_sums_wrap_saturate_or_stop():
    wrapped, done = through([1, -1], BIAS)
    assert wrapped == [-(2**31), 2**31 - 2]
    assert [flag.rule.name for flag in done.flags] == ["overflow"]
    assert through([1, -1], BIAS, Options(int32_overflow=o.Int32Overflow.SATURATE))[0] == [
        2**31 - 1,
        2**31 - 2,
    ]
    with pytest.raises(StreamError, match="does not fit int32"):
        through([1], BIAS, Options(strict_overflow=True))


@pytest.mark.parametrize(("how", "value"), [(o.Int16Overflow.SATURATE, 2**15 - 1), (o.Int16Overflow.WRAP, 0)])
def test_int4_sums_beyond_int16(how, value):
    shape = Shape("int4", "int16", 1, 1024, 64)
    a, b = np.full((1, 1024), -8), np.full((64, 1024), -8)
    found, done = run(shape, a, b, options=Options(int16_overflow=how))
    assert set(found.ravel()) == {value}  # 65,536
    assert [flag.rule.name for flag in done.flags] == ["overflow"]


@pytest.mark.parametrize(
    ("how", "value"),
    [(o.FloatSum.GROUPS_OF_32, 2**24 + 4), (o.FloatSum.IN_ORDER, 2**24), (o.FloatSum.EXACT, 2**24 + 6)],
)
def test_float_sums(how, value):
    # 2^24 and three ones in the first run of 32, one in each of the next three. fp32 here counts in twos.
    a = np.zeros((1, 128))
    a[0, [0, 1, 2, 3, 32, 64, 96]] = [4096, 1, 1, 1, 1, 1, 1]
    b = np.ones((16, 128))
    b[:, 0] = 4096
    found, _ = run(Shape("fp16", "fp32", 1, 128, 16), a, b, options=Options(float_sum=how))
    assert set(found.ravel()) == {value}


def test_lane_0_events_lower_lane_0_alone():
    shape = Shape("fp16", "fp32", 2, 32, 32)
    a = np.ones((2, 32))
    a[1, 5] = 0.0  # a feature of +0 spares the row
    b = np.zeros((32, 32))
    b[:, 0] = 1
    found, _ = run(shape, a, b, options=Options(lane0_event_rate=1.0))
    expected = np.ones((2, 32))
    # Coarse exponents of 1.0 are 15 / 4 = 3 each: lowered by 2^(4 * 6 - 44).
    expected[0, ::16] -= 2.0**-20
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(run(shape, a, b)[0], np.ones((2, 32)))


@pytest.mark.parametrize(
    ("how", "value"), [(o.Tf32Input.TRUNCATE, 1.0), (o.Tf32Input.NEAREST, 1.0 + 2.0**-10)]
)
def test_tf32_inputs_lose_their_low_bits(how, value):
    a = np.zeros((1, 16))
    a[0, 0] = 1.0 + 2.0**-11 + 2.0**-20
    found, _ = run(Shape("tf32", "fp32", 1, 16, 16), a, np.ones((16, 16)), options=Options(tf32_input=how))
    assert set(found.ravel()) == {value}


@pytest.mark.parametrize(
    ("how", "value"), [(o.Fp16Overflow.INFINITY, np.inf), (o.Fp16Overflow.LARGEST, 65504.0)]
)
def test_fp16_results_beyond_the_largest(how, value):
    a = np.zeros((1, 32))
    a[0, 0] = 512.0
    b = np.full((16, 32), 256.0)
    b[8:] *= -1
    found, done = run(Shape("fp16", "fp16", 1, 32, 16), a, b, options=Options(fp16_overflow=how))
    assert found[0].tolist() == [value] * 8 + [-value] * 8
    assert [flag.rule.name for flag in done.flags] == ["overflow"]


@pytest.mark.parametrize(
    ("how", "values"),
    [
        (o.FloatToInt16.TIES_EVEN, [0, 2, 2, -2, 32767, -32768]),
        (o.FloatToInt16.TRUNCATE, [0, 1, 2, -2, 32767, -32768]),
    ],
)
def test_floats_stored_as_int16(how, values):
    a = np.zeros((1, 32))
    a[0, 0] = 1
    b = np.zeros((16, 32))
    b[:6, 0] = [0.5, 1.5, 2.5, -2.5, 65504, -65504]
    changes = {"DPU_DATA_FORMAT": 0x28000002, "DPU_BS_OW_CFG": 0x126, "DPU_SURFACE_ADD": 32}
    found, _ = run(Shape("fp16", "int16", 1, 32, 16), a, b, changes, options=Options(float_to_int16=how))
    assert found[0, :6].tolist() == values


def elementwise(shape, ew_cfg, fp16=True):
    """What a second operand beside a product changes (both DMAs, alternate surfaces)."""
    size = shape.m * 16
    return {
        "DPU_EW_CFG": ew_cfg,
        "DPU_RDMA_SRC_BASE_ADDR": Address("operand"),
        "DPU_RDMA_EW_BASE_ADDR": Address("operand", size),
        "DPU_RDMA_ERDMA_CFG": 0x40000008 if fp16 else 0x4000000C,
        "DPU_RDMA_EW_SURF_STRIDE": size,
        "DPU_RDMA_SURF_NOTCH": size,
        "DPU_RDMA_EW_SURF_NOTCH": size,
        "DPU_RDMA_FEATURE_MODE_CFG": 0x17D40,
    }


EW_ADD = 0x108202C0


@pytest.mark.parametrize(
    ("how", "value"),
    [
        # 1 + 2^-11 (a tie in fp16) + 2^-11 is 1 + 2^-10 at once; rounded first it is 1 + 2^-11, so 1 again.
        (o.ElementwiseFp16.ROUND_ONCE, 1 + 2.0**-10),
        (o.ElementwiseFp16.ROUND_FIRST, 1.0),
    ],
)
def test_a_product_is_rounded_once_or_first(how, value):
    shape = Shape("fp16", "fp16", 1, 32, 16, rdma=True)
    a, b = np.zeros((1, 32)), np.zeros((16, 32))
    a[0, :2] = [1, 2.0**-11]
    b[:, :2] = 1
    operand = stored(np.full((1, 16), 2.0**-11), "fp16", sheet.output_places(shape))
    found, _ = run(
        shape,
        a,
        b,
        elementwise(shape, EW_ADD),
        Options(elementwise_fp16=how),
        {"operand": operand},
    )
    assert set(found.ravel()) == {value}


@pytest.mark.parametrize(("how", "value"), [(o.Subnormals.KEEP, 2.0**-24), (o.Subnormals.FLUSH, 0.0)])
def test_subnormal_operands(how, value):
    shape = Shape("fp16", "fp16", 1, 32, 16, rdma=True)
    operand = stored(np.full((1, 16), 2.0**-24), "fp16", sheet.output_places(shape))
    found, _ = run(
        shape,
        np.zeros((1, 32)),
        np.zeros((16, 32)),
        elementwise(shape, EW_ADD),
        Options(subnormals=how),
        {"operand": operand},
    )
    assert set(found.ravel()) == {value}


@pytest.mark.parametrize("pitch", list(o.ErdmaPitch))
def test_the_readings_of_the_operand_pitch(pitch):
    # Where stride, notch and cube are one and the same, all readings agree, as in golden programs.
    shape = Shape("fp16", "fp16", 16, 32, 64, rdma=True)
    a, b = operands("fp16", (16, 32), 1), operands("fp16", (64, 32), 2)
    random = np.random.default_rng(3)
    y = random.standard_normal((16, 64)).astype(np.float16).astype(np.float64)
    buffers = {"operand": stored(y, "fp16", sheet.output_places(shape))}
    found, _ = run(shape, a, b, elementwise(shape, EW_ADD), Options(erdma_pitch=pitch), buffers)
    assert np.abs(found - (a @ b.T + y)).max() < 0.02
    # With another notch they part: only the reading that the notch leaves alone still finds its surfaces.
    changes = {**elementwise(shape, EW_ADD), "DPU_RDMA_EW_SURF_NOTCH": 0}
    if pitch in (o.ErdmaPitch.TWICE_STRIDE, o.ErdmaPitch.CUBE_PLUS_STRIDE):
        again, _ = run(shape, a, b, changes, Options(erdma_pitch=pitch), buffers)
        np.testing.assert_array_equal(again, found)
    else:
        again, _ = run(shape, a, b, changes, Options(erdma_pitch=pitch), buffers)
        assert np.abs(again - found).max() > 0.1


def _bare(shape, without):
    """The shape's program without some of its writes."""
    return build([(name, value) for name, value in sheet.writes(shape) if name not in without], 0x0D)


def test_registers_persist_or_not():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    halved = sheet.program(shape, {"DPU_OUT_CVT_SHIFT": 1})
    bare = _bare(shape, {"DPU_OUT_CVT_SHIFT"})
    exact = a @ b.T
    for options, result in (
        (Options(groups=o.Groups.ONE), np.rint(exact / 2)),
        # Two groups: the second program writes into the other one, which still holds 0.
        (Options(groups=o.Groups.TWO), exact),
        (Options(groups=o.Groups.ONE, stale=o.Stale.RESET), exact),
    ):
        bench = bench_for(shape, a, b, options)
        bench.kick(halved)
        bench.kick(bare)
        found = taken(bench.buffers["output"], "int32", sheet.output_places(shape))
        np.testing.assert_array_equal(found, result)


def test_the_third_program_meets_the_group_of_the_first():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    bench = bench_for(shape, a, b)
    bare = _bare(shape, {"DPU_OUT_CVT_SHIFT"})
    bench.kick(chain([sheet.program(shape, {"DPU_OUT_CVT_SHIFT": 1}), bare, bare]))
    found = taken(bench.buffers["output"], "int32", sheet.output_places(shape))
    np.testing.assert_array_equal(found, np.rint(a @ b.T / 2))


def test_reads_of_registers_that_nothing_wrote_are_reported():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    bench = bench_for(shape, a, b, Options(report_unwritten=True))
    flags = bench.kick(_bare(shape, {"CNA_PAD_CON0", "DPU_OUT_CVT_SHIFT"})).flags
    assert {(flag.rule.name, flag.place.register) for flag in flags} == {
        ("unwritten", "CNA_PAD_CON0"),
        ("unwritten", "DPU_OUT_CVT_SHIFT"),
    }
    assert bench_for(shape, a, b).kick(_bare(shape, {"CNA_PAD_CON0"})).flags == ()


def test_a_wrong_split_of_the_buffer_gives_zeros_by_option():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    changes = {"CNA_CBUF_CON0": 0xBC}
    with pytest.raises(StreamError, match="CNA_CBUF_CON0: 12 data and 11 weight banks"):
        run(shape, a, b, changes)
    found, done = run(shape, a, b, changes, Options(bad_buffer=o.BadBuffer.ZEROS))
    assert not found.any()
    assert [flag.rule.name for flag in done.flags] == ["bank-sum"]


# Rows: numbers of 32 inputs that one author found wrong on a board without a spare bank.
SPARE_BANK = {144: (7, 21, 35), 192: (5, 21, 37), 240: (17, 21, 25, 29)}


@pytest.mark.parametrize("rows", SPARE_BANK)
def test_shapes_that_need_a_spare_bank(rows):
    flagged = []
    for inputs in range(1, 48):
        shape = Shape("int8", "int32", rows, 32 * inputs, 32)
        if sheet.banks(shape) - (-shape.k * 32 // 32768) > 12:  # with those of one group of kernels
            break
        a, b = operands("int8", (rows, shape.k), 1), operands("int8", (32, shape.k), 2)
        found, done = run(shape, a, b)
        np.testing.assert_array_equal(found, a @ b.T)
        if done.flags:
            assert {flag.rule.name for flag in done.flags} == {"spare-bank"}
            flagged.append(inputs)
    assert tuple(flagged) == SPARE_BANK[rows]


def test_what_a_missing_spare_bank_does():
    shape = Shape("int8", "int32", 144, 32 * 7, 32)
    a, b = operands("int8", (144, 224), 1), operands("int8", (32, 224), 2)
    exact = a @ b.T
    found, done = run(shape, a, b, options=Options(spare_bank=o.SpareBank.IGNORE))
    np.testing.assert_array_equal(found, exact)
    assert done.flags == ()
    assert (run(shape, a, b, options=Options(spare_bank=o.SpareBank.CORRUPT))[0] != exact).any()
    spared = Shape("int8", "int32", 144, 32 * 7, 32, spare_bank=1)
    found, done = run(spared, a, b, options=Options(spare_bank=o.SpareBank.CORRUPT))
    np.testing.assert_array_equal(found, exact)
    assert done.flags == ()


def test_an_early_interrupt_ends_before_the_output():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    bench = bench_for(shape, a, b)
    done = bench.kick(sheet.program(shape), int_mask=0x30)
    assert done.early
    assert (bench.buffers["output"] == 0xA5).all()
    assert [flag.rule.name for flag in done.flags] == ["interrupt-mask"]
    bench = bench_for(shape, a, b, Options(early_end=o.EarlyEnd.REFUSE))
    with pytest.raises(StreamError, match="waits for 0x30, expected 0x300"):
        bench.kick(sheet.program(shape), int_mask=0x30)
    # A mask of the pooling unit never comes.
    with pytest.raises(StreamError, match="waits for 0xc00"):
        bench_for(shape, a, b).kick(sheet.program(shape), int_mask=0xC00)


def test_notches_that_differ():
    # Row-major output of 32 int32 columns: the next row begins 8 atoms on.
    shape = Shape("int8", "int32", 4, 32, 32, "row-major")
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    changes = {"DPU_DATA_CUBE_NOTCH": 9 << 16 | 7}
    with pytest.raises(StreamError, match="7 and 9, expected one value"):
        run(shape, a, b, changes)
    found, done = run(shape, a, b, changes, Options(notch=o.Notch.FIRST))
    np.testing.assert_array_equal(found, a @ b.T)
    assert [flag.rule.name for flag in done.flags] == ["notches"]
    changes = {"DPU_DATA_CUBE_NOTCH": 7 << 16 | 9}
    found, _ = run(shape, a, b, changes, Options(notch=o.Notch.SECOND))
    np.testing.assert_array_equal(found, a @ b.T)


MULTIPLY = {"DPU_BS_CFG": 0x42, "DPU_BS_MUL_CFG": 3 << 16 | 1 << 8}


@pytest.mark.parametrize(
    ("how", "values"),
    [(o.NegativeShift.SEPARATE, [6, -3]), (o.NegativeShift.SAME, [6, -6])],
)
def test_negative_values_have_a_shift_of_their_own(how, values):
    # 4 * 3 / 2, and -4 * 3 / 4 where the separate field holds 2.
    changes = {**MULTIPLY, "DPU_DATA_FORMAT": 0x80000000 | 2 << 4}
    assert through([4, -4], changes, Options(negative_shift=how))[0] == values


@pytest.mark.parametrize("minus_1", [False, True])
def test_weight_offsets_add_the_sum_of_the_inputs(minus_1):
    # acc + A + B * S, then times C / 2^s, with A and C from memory and B from the register.
    shape = Shape("int8", "int32", 3, 32, 32, rdma=True)
    a, b = operands("int8", (3, 32), 1), operands("int8", (32, 32), 2)
    random = np.random.default_rng(5)
    bias, factor = random.integers(-(2**20), 2**20, 32), random.integers(-(2**12), 2**12, 32)
    records = np.zeros(4, [("a", "<i4", 8), ("b", "<i2", 8), ("c", "<i2", 8)])
    records["a"], records["c"] = bias.reshape(4, 8), factor.reshape(4, 8)
    changes = {
        "DPU_BS_CFG": 0x20140,
        "DPU_BS_MUL_CFG": 12 << 8 | 1,
        "DPU_DATA_FORMAT": 0x80000000 | 12 << 4,
        "DPU_BS_OW_OP": 100,
        "DPU_RDMA_BRDMA_CFG": 7 << 1,
        "DPU_RDMA_BS_BASE_ADDR": Address("operand"),
    }
    offset = 101 if minus_1 else 100
    sums = a.sum(axis=1, keepdims=True)
    expected = np.rint((a @ b.T + bias + offset * sums) * factor / 2.0**12)
    found, _ = run(shape, a, b, changes, Options(ow_op_minus_1=minus_1), {"operand": records.view(np.uint8)})
    np.testing.assert_array_equal(found, expected)


def test_weight_offsets_a_channel():
    shape = Shape("int8", "int32", 3, 32, 32, rdma=True)
    a, b = operands("int8", (3, 32), 1), operands("int8", (32, 32), 2)
    offsets = np.random.default_rng(6).integers(-128, 128, 32)
    records = np.zeros(4, [("a", "<i4", 8), ("b", "<i2", 8), ("c", "<i2", 8)])
    records["b"], records["c"] = offsets.reshape(4, 8), 1
    changes = {
        "DPU_BS_CFG": 0x20140,
        "DPU_BS_MUL_CFG": 1,
        "DPU_BS_OW_CFG": 0x7FF,
        "DPU_RDMA_BRDMA_CFG": 7 << 1,
        "DPU_RDMA_BS_BASE_ADDR": Address("operand"),
    }
    found, _ = run(shape, a, b, changes, buffers={"operand": records.view(np.uint8)})
    np.testing.assert_array_equal(found, a @ b.T + offsets * a.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("how", "value"), [(o.BnOrder.MULTIPLY_FIRST, 3 * 5 + 4), (o.BnOrder.ALU_FIRST, 3 * (5 + 4))]
)
def test_the_second_stage_multiplies_first_or_last(how, value):
    changes = {"DPU_BN_CFG": 2 << 16 | 0x40, "DPU_BN_ALU_CFG": 4, "DPU_BN_MUL_CFG": 3 << 16}
    assert through([5], changes, Options(bn_order=how))[0] == [value]


def test_jobs_are_lost_by_chance_or_after_a_reset():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    bench = bench_for(shape, a, b, Options(first_job_lost=True))
    program = sheet.program(shape)
    assert bench.kick(program).lost
    assert (bench.buffers["output"] == 0xA5).all()
    assert not bench.kick(program).lost
    bench.core.reset()
    assert bench.kick(program).lost
    bench = bench_for(shape, a, b, Options(lost_job_rate=0.5, seed=1))
    lost = [bench.kick(program).lost for _ in range(40)]
    assert 5 < sum(lost) < 35
    again = bench_for(shape, a, b, Options(lost_job_rate=0.5, seed=1))
    assert [again.kick(program).lost for _ in range(40)] == lost


def test_impossible_options_are_refused():
    with pytest.raises(NpuError, match="lost_job_rate is 2, expected a chance"):
        Options(lost_job_rate=2)
    with pytest.raises(NpuError, match="core_order"):
        Options(core_order=(0, 0, 1))


def test_no_effect_is_known_of_qd_en_od_bypass_and_the_operands_of_a_block_that_is_off():
    shape = Shape("int8", "int32", 4, 32, 32)
    a, b = operands("int8", (4, 32), 1), operands("int8", (32, 32), 2)
    changes = {
        "CORE_MISC_CFG": 1,
        "DPU_BS_OW_CFG": 0x7FC,
        "DPU_RDMA_ERDMA_CFG": 0x40000008,
        "DPU_RDMA_EW_BASE_ADDR": 0x7FFFFFF0,
    }
    found, done = run(shape, a, b, changes)
    np.testing.assert_array_equal(found, a @ b.T)
    assert done.flags == ()


def test_relu_and_its_limit():
    changes = {"DPU_BS_CFG": 0x92 | 1 << 1, "DPU_BS_RELUX_CMP": 100}
    assert through([-7, 7, 700], changes)[0] == [0, 7, 100]


def test_prelu_multiplies_negative_values_alone():
    changes = {**MULTIPLY, "DPU_BS_CFG": 0x62, "DPU_DATA_FORMAT": 0x80000000 | 1 << 4}
    assert through([8, -8], changes)[0] == [8, -12]
