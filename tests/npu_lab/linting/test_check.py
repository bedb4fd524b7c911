"""The lint is silent on programs that ran on hardware, and finds what is put into them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.npu.isa import REGISTERS, register_of, split, word, write
from rockledge.npu.programs.tile_program import addition_program, product_program
from rockledge.npu.programs.tiling import Reuse
from rockledge.npu.stream import chain
from rockledge_npu_lab.linting.check import lint

CASES = {
    case["id"]: [int(word, 16) for task in case["tasks"] for word in task["words"]]
    for case in json.loads((Path(__file__).parents[2] / "npu" / "regcmd_golden.json").read_text())["cases"]
}
ADDRESSES = {
    "input": 0x0100_0000,
    "weight": 0x0200_0000,
    "output": 0x0300_0000,
    "scratch": 0x0400_0000,
    "program": 0x0010_0000,
}
# What the fact sheet says that short programs depend on and leave unwritten.
LEFT_UNWRITTEN = {
    "allbilly": {
        "CNA_PAD_CON0",
        "CNA_DCOMP_CTRL",
        "CORE_CLIP_TRUNCATE",
        "DPU_OUT_CVT_OFFSET",
        "DPU_OUT_CVT_SHIFT",
    },
    "gor_lut": {"DPU_DATA_CUBE_NOTCH"},
}


def expected(name):
    return next((names for start, names in LEFT_UNWRITTEN.items() if name.startswith(start)), set())


@pytest.mark.parametrize("name", sorted(CASES))
def test_of_golden_programs_only_what_they_leave_unwritten_is_found(name):
    findings = lint(CASES[name])
    assert {finding.about for finding in findings} == expected(name)
    assert all("never written in this stream" in finding.reason for finding in findings)


def ours(rows=64, inputs=512, columns=256, **options):
    return product_program(rows, inputs, columns, **options).at(ADDRESSES).tolist()


def changed(words, name, value):
    """The words with another value for a register (its only write)."""
    target, offset = REGISTERS[name].block.target, REGISTERS[name].offset
    found = [split(command)[::2] == (target, offset) for command in words]
    assert sum(found) == 1
    return [write(name, value) if hit else command for hit, command in zip(found, words, strict=True)]


def value_of(words, name):
    register = REGISTERS[name]
    return next(
        value for target, value, offset in map(split, words) if register_of(target, offset) is register
    )


def with_field(words, name, **fields):
    """The words with some fields of one register changed."""
    known = {field.name: field for field in REGISTERS[name].fields}
    value = value_of(words, name)
    for field, number in fields.items():
        value &= ~(known[field].limit << known[field].low)
        value |= number << known[field].low
    return changed(words, name, value)


FAULTS = {
    "bank sum": ("CNA_CBUF_CON0", {"data_bank": 2, "weight_bank": 11}, "2 data and 11 weight banks"),
    "no bank for the activations": ("CNA_CBUF_CON0", {"data_bank": 0}, "do not fit 0 data banks"),
    "no bank for a group of kernels": ("CNA_CBUF_CON0", {"weight_bank": 0}, "0 weight banks hold less"),
    "fully connected bank": ("CNA_CBUF_CON0", {"fc_data_bank": 1}, "anything but 0"),
    "both operands reused": ("CNA_CBUF_CON0", {"data_reuse": 1, "weight_reuse": 1}, "both set"),
    "reuse of nothing": ("CNA_CBUF_CON0", {"data_reuse": 1}, "nothing to reuse"),
    "width ceiling": ("DPU_DATA_CUBE_WIDTH", {"width_minus_1": 8191}, "all that its 13 bits hold"),
    "channel ceiling": ("DPU_DATA_CUBE_CHANNEL", {"channels_minus_1": 8191}, "13 bits"),
    "too many kernels": ("CNA_WEIGHT_SIZE2", {"kernels": 9000}, "9000 kernels"),
    "wrapped inputs": ("CNA_DATA_SIZE1", {"real_channels_minus_1": 3}, "4 real ones"),
    "odd inputs": ("CNA_DATA_SIZE1", {"channels": 500, "real_channels_minus_1": 499}, "multiple of 32"),
    "odd kernels": ("CNA_WEIGHT_SIZE2", {"kernels": 250}, "250 kernels of int8"),
    "another type in CORE": ("CORE_MISC_CFG", {"proc_precision": 2}, "but the inputs are int8"),
    "another type in the DPU": ("DPU_DATA_FORMAT", {"in_precision": 2}, "in_precision is not int8"),
    "no type": ("CNA_CONV_CON1", {"in_precision": 5}, "is not a known type"),
    "rows cut off": ("CORE_DATAOUT_SIZE_0", {"height_minus_1": 9}, "10 height in height_minus_1"),
    "columns cut off": ("CORE_DATAOUT_SIZE_1", {"channels_minus_1": 31}, "32 channels in channels_minus_1"),
    "pixels cut off": ("CNA_DATA_SIZE3", {"output_pixels": 9}, "9 pixels in output_pixels"),
    "writes cut off": ("DPU_WDMA_SIZE_1", {"height_minus_1": 9}, "10 height in height_minus_1"),
    "operand reads cut off": (
        "DPU_RDMA_DATA_CUBE_HEIGHT",
        {"height_minus_1": 9},
        "10 height in height_minus_1",
    ),
    "width cut off": ("CNA_DATA_SIZE2", {"output_width": 0}, "0 width in output_width"),
    "channels cut off": ("DPU_WDMA_SIZE_0", {"channels_minus_1": 31}, "32 channels in channels_minus_1"),
    "operand channels": ("DPU_RDMA_DATA_CUBE_CHANNEL", {"channels_minus_1": 3}, "4 channels"),
    "entries of a line": ("CNA_CBUF_CON1", {"data_entries": 9}, "9 entries, but a line of 512 bytes takes 8"),
    "bytes of all kernels": ("CNA_WEIGHT_SIZE0", {"bytes": 512}, "the kernels have 131072"),
    "bytes of a kernel": ("CNA_WEIGHT_SIZE1", {"bytes_per_kernel": 256}, "the kernels have 512"),
    "surfaces on each other": ("DPU_DST_SURF_STRIDE", {"stride": 0}, "surfaces of a pixel"),
    "groups on each other": ("DPU_SURFACE_ADD", {"stride": 0}, "groups of channels"),
    "size_e": ("DPU_BS_OW_CFG", {"size_e_1": 3}, r"[7, 3, 7]"),
    "no output type": ("DPU_DATA_FORMAT", {"out_precision": 7}, "out_precision 7 is not a known type"),
    "unread second stage": ("DPU_EW_CFG", {"bypass": 0, "op_bypass": 0, "op_source": 1}, "ERDMA does not"),
    "unread first stage": ("DPU_BS_CFG", {"bypass": 0, "alu_bypass": 0, "alu_source": 1}, "BRDMA does not"),
    "unread main input": ("DPU_FEATURE_MODE_CFG", {"flying_mode": 1}, "MRDMA does not"),
    "rows left out": ("CNA_DATA_SIZE0", {"height": 32}, "32 pixels go in, but 64 come out"),
    "half depthwise": ("CORE_MISC_CFG", {"dw_en": 1}, "disagree on whether this is depthwise"),
    "unfed main read": ("DPU_RDMA_FEATURE_MODE_CFG", {"mrdma_disable": 0}, "the job times out"),
    "half flying": ("DPU_RDMA_FEATURE_MODE_CFG", {"flying_mode": 1}, "disagree on flying_mode"),
    "second stage operand": ("DPU_RDMA_NRDMA_CFG", {"data_use": 1}, "hangs"),
    "two notches": ("DPU_DATA_CUBE_NOTCH", {"notch_1": 3}, "the two notches are 0 and 3"),
    "decompression": ("CNA_DCOMP_CTRL", {"control": 3}, "decompression 3 is on"),
    "unaligned address": ("DPU_DST_BASE_ADDR", {"address": 0x0300_0008}, "not a multiple of 16"),
    "bits without a name": ("CNA_DATA_SIZE2", {}, "belong to no known field"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_is_found_at_its_register(fault):
    name, fields, words = FAULTS[fault]
    stream = with_field(ours(), name, **fields) if fields else changed(ours(), name, 1 | 1 << 31)
    findings = [finding for finding in lint(stream) if finding.about == name]
    assert any(words in finding.reason for finding in findings), findings
    assert all(register_of(*split(stream[f.word])[::2]).name == name for f in findings)


def test_our_programs_have_no_findings():
    program = chain(
        [
            product_program(64, 512, 256),
            product_program(64, 512, 256, reuse=Reuse.DATA),
            addition_program(64, 256),
        ]
    )
    assert lint(program.at(ADDRESSES).tolist()) == []
    assert lint(ours(rows=1)) == []


# The pairs of rows and multiples of 32 inputs that were silently wrong on hardware without a spare bank.
NEED_SPARE_BANK = {144: (7, 21, 35), 192: (5, 21, 37), 240: (17, 21, 25, 29)}


@pytest.mark.parametrize("rows", sorted(NEED_SPARE_BANK))
def test_a_missing_spare_bank_is_found_where_it_matters(rows):
    for runs in range(1, 38):
        words = ours(rows, 32 * runs, 64)
        assert lint(words) == []
        banks = -(-rows * 32 * runs // 32768)
        without = with_field(words, "CNA_CBUF_CON0", data_bank=banks, weight_bank=12 - banks)
        found = ["spare data bank" in finding.reason for finding in lint(without)]
        assert found == ([True] if runs in NEED_SPARE_BANK[rows] else [])


def test_int8_output_of_a_partial_group_is_found():
    words = ours(columns=32)
    words = changed(words, "DPU_DATA_FORMAT", 0)
    for name, field in (("DPU_DATA_CUBE_CHANNEL", "channels_minus_1"),):
        words = with_field(words, name, **{field: 15})
    assert any("partial group of 32 hangs" in finding.reason for finding in lint(words))


def test_a_clamped_stride_is_found():
    words = changed(ours(rows=1), "CNA_DMA_CON2", 0)
    assert ["surfaces are 4 rows apart" in finding.reason for finding in lint(words)] == [True]


def test_small_grains_and_wrapped_grains_are_found():
    small = with_field(ours(32, 3840, 32), "CNA_CONV_CON2", feature_grains=4)
    assert ["submits failed with small ones" in finding.reason for finding in lint(small)] == [True]
    wrapped = with_field(ours(), "CNA_DATA_SIZE0", height=1024)
    assert any("wrapped to 65" in finding.reason for finding in lint(wrapped))


def test_float_elementwise_conversion_is_checked_both_ways():
    add = CASES["gor_fp16_fp16_ewadd_m64_k256_n128"]
    multiply = CASES["gor_fp16_fp16_ewmul_m32_k64_n64"]
    bypassed = with_field(add, "DPU_EW_CFG", op_cvt_bypass=1)
    converted = with_field(multiply, "DPU_EW_CFG", op_cvt_bypass=0)
    assert ["needs the operand conversion (" in f.reason for f in lint(bypassed)] == [True]
    assert ["conversion bypassed" in f.reason for f in lint(converted)] == [True]


def test_reuse_of_something_else_is_found():
    second = product_program(64, 512, 256, reuse=Reuse.WEIGHT)
    words = chain([product_program(64, 512, 256), second]).at(ADDRESSES).tolist()
    assert lint(words) == []
    other = chain([product_program(64, 256, 256), second]).at(ADDRESSES).tolist()
    assert ["the matmul before read something else" in finding.reason for finding in lint(other)] == [True]
    moved = chain([product_program(64, 512, 256, banks=(3, 9)), second]).at(ADDRESSES).tolist()
    assert ["the banks are not those" in finding.reason for finding in lint(moved)] == [True]


def test_int8_behind_wide_fp16_is_found():
    wide = CASES["mtx_fp16_fp16_m4_k64_n16"]
    wide = with_field(wide, "CNA_WEIGHT_SIZE2", kernels=8192)
    assert any("such a pair timed out" in finding.reason for finding in lint(wide + ours()))


def test_long_tf32_is_found():
    words = with_field(
        CASES["gor_tf32_fp32_m16_k128_n64"], "CNA_DATA_SIZE1", channels=5120, real_channels_minus_1=5119
    )
    assert any("5120 inputs of tf32" in finding.reason for finding in lint(words))


def test_a_stream_that_writes_the_drivers_registers_is_found():
    words = [write("CNA_S_POINTER", 0xE), write("CORE_MAC_GATING", 0), *ours()]
    assert {finding.about for finding in lint(words)} == {"CNA_S_POINTER", "CORE_MAC_GATING"}


def test_a_register_left_out_is_stale_or_never_written():
    short = [w for w in ours() if split(w)[::2] != (0x1001, 0x4038)]
    (finding,) = lint(short)
    assert (finding.about, finding.word) == ("DPU_DATA_CUBE_NOTCH", len(short) - 1)
    assert "never written" in finding.reason
    linked = chain([product_program(64, 512, 256)] * 2).at(ADDRESSES).tolist()
    at = max(i for i, w in enumerate(linked) if split(w)[::2] == (0x1001, 0x4038))
    linked[at] = word(1, 0, 0)
    assert [f.reason.split(":")[0] for f in lint(linked)] == ["stale"]


def test_programs_without_links_are_found():
    words = ours() + ours()
    (finding,) = lint(words)
    assert (finding.word, finding.about) == (122, "link")
    assert "no link to the program at word 126" in finding.reason


def test_links_that_lead_astray_are_found():
    words = chain([product_program(4, 32, 32)] * 2).at(ADDRESSES).tolist()
    assert lint(words) == []
    astray = changed(words[:126], "PC_BASE_ADDRESS", 0x0010_03F8) + words[126:]
    assert ["expected a multiple of 16" in finding.reason for finding in lint(astray)] == [True]
    short = changed(words[:126], "PC_REGISTER_AMOUNTS", 10) + words[126:]
    assert ["its enable word is never reached" in finding.reason for finding in lint(short)] == [True]
    assert ["links to one that is not here" in finding.reason for finding in lint(words[:126])] == [True]


def test_words_that_are_no_register_and_programs_that_start_nothing_are_found():
    words = [word(0x0401, 0x2000, 1), *ours()]
    assert [(f.word, f.about) for f in lint(words)] == [(0, "0401:2000")]
    idle = [*ours()[:-1], word(0x0081, 8, 0)]
    assert [(f.word, f.about) for f in lint(idle)] == [(125, "enable")]
    assert "without an enable word" in lint(ours()[:-1])[0].reason


known_words = st.builds(write, st.sampled_from(sorted(REGISTERS)), st.integers(0, 2**32 - 1))
ends = st.integers(0, 0x7F).map(
    lambda enable: [0, write("PC_REGISTER_AMOUNTS", 0), word(0x41, 0, 0), word(0x81, 8, enable)]
)


@given(st.lists(st.tuples(st.lists(known_words, max_size=30), ends), max_size=3))
def test_whatever_is_written_each_finding_points_into_the_stream(programs):
    words = [command for body, end in programs for command in [*body, *end]]
    assert all(0 <= finding.word < max(1, len(words)) for finding in lint(words))


@given(st.lists(st.one_of(known_words, st.integers(0, 2**64 - 1)), max_size=20))
def test_any_words_are_linted(words):
    assert all(0 <= finding.word < max(1, len(words)) for finding in lint(words))
