"""What hardware hangs on, refuses or silently spoils is an error that names word, register and rule."""

from pathlib import Path

import numpy as np
import pytest
from tests.npu_lab import sheet
from tests.npu_lab.emulation.running import Bench, bench_for, operands
from tests.npu_lab.sheet import Shape

from rockledge.npu import isa
from rockledge.npu.stream import Address, Program, build, chain
from rockledge_npu_lab import emulation
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.faults import RULES, StreamError
from rockledge_npu_lab.emulation.memory import Buffer, Memory
from rockledge_npu_lab.emulation.options import Options

INT8 = Shape("int8", "int32", 4, 32, 32, rdma=True)
FP16 = Shape("fp16", "fp16", 4, 32, 16, rdma=True)
TF32 = Shape("tf32", "fp32", 3, 5120, 16)


def bench(shape: Shape, options: Options | None = None) -> Bench:
    a = operands(shape.kind, (shape.m, shape.k), 1)
    b = operands(shape.kind, (shape.n, shape.k), 2)
    return bench_for(shape, a, b, options or Options())


def word_of(program: Program, register: str) -> int | None:
    """Index of the last word that writes a register."""
    wanted = isa.REGISTERS[register]
    found = [
        index
        for index, word in enumerate(program.words)
        if (word >> 48, word & 0xFFFF) == (wanted.block.target, wanted.offset)
    ]
    return found[-1] if found else None


CASES = [
    # shape, register and value that break it, rule, register that the error names
    (INT8, "CNA_CONV_CON1", 0x120, "type", "CORE_MISC_CFG"),
    (INT8, "CNA_CONV_CON1", 0x020, "type", "CNA_CONV_CON1"),
    (INT8, "CNA_CONV_CON1", 0x090, "type", "CNA_CONV_CON1"),  # int16 products
    (INT8, "CNA_CONV_CON1", 0x280, "type", "CNA_CONV_CON1"),  # a type that no code names
    (INT8, "CNA_CONV_CON1", 1, "convolution", "CNA_CONV_CON1"),
    (INT8, "CNA_CONV_CON1", 3, "shape", "CORE_MISC_CFG"),
    (INT8, "CNA_CONV_CON1", 1 << 16, "convolution", "CNA_CONV_CON1"),
    (INT8, "CNA_CONV_CON3", 18, "convolution", "CNA_CONV_CON3"),
    (INT8, "CNA_DATA_SIZE0", 0, "shape", "CNA_DATA_SIZE0"),
    (INT8, "CNA_DATA_SIZE1", 31 << 16 | 64, "shape", "CNA_DATA_SIZE1"),
    (INT8, "CNA_DATA_SIZE2", 2, "shape", "CNA_DATA_SIZE2"),
    (INT8, "CNA_DATA_SIZE3", 5, "shape", "CNA_DATA_SIZE3"),
    (INT8, "CORE_DATAOUT_SIZE_0", 4 << 16, "shape", "CORE_DATAOUT_SIZE_0"),
    (INT8, "CORE_DATAOUT_SIZE_1", 63, "shape", "CORE_DATAOUT_SIZE_1"),
    (INT8, "CNA_WEIGHT_SIZE0", 1025, "weight-size", "CNA_WEIGHT_SIZE0"),
    (INT8, "CNA_WEIGHT_SIZE1", 64, "weight-size", "CNA_WEIGHT_SIZE1"),
    (INT8, "CNA_WEIGHT_SIZE2", 0x02010020, "convolution", "CNA_WEIGHT_SIZE2"),
    (INT8, "CNA_PAD_CON0", 0x11, "convolution", "CNA_PAD_CON0"),
    (INT8, "CNA_CVT_CON0", 0xA, "input-conversion", "CNA_CVT_CON0"),
    (INT8, "CNA_DCOMP_CTRL", 1, "decompression", "CNA_DCOMP_CTRL"),
    (INT8, "CORE_CLIP_TRUNCATE", 1, "convolution", "CORE_CLIP_TRUNCATE"),
    (INT8, "CNA_CBUF_CON0", 0xBC, "bank-sum", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON0", 0xB0, "data-banks", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON0", 0x01, "weight-banks", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON0", 0x1B1, "fc-data-bank", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON0", 0x10B1, "reuse", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON0", 0x20B1, "reuse", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON0", 0x30B1, "reuse", "CNA_CBUF_CON0"),
    (INT8, "CNA_CBUF_CON1", 2, "data-entries", "CNA_CBUF_CON1"),
    (INT8, "CNA_FEATURE_DATA_ADDR", 0x01000008, "alignment", "CNA_FEATURE_DATA_ADDR"),
    (INT8, "CNA_FEATURE_DATA_ADDR", 0x01000010, "memory", "CNA_FEATURE_DATA_ADDR"),
    (INT8, "CNA_DMA_CON2", 1 << 19, "memory", "CNA_FEATURE_DATA_ADDR"),
    (INT8, "CNA_DCOMP_ADDR0", 0xFFFFFF00, "memory", "CNA_DCOMP_ADDR0"),
    (INT8, "CORE_MAC_GATING", 0x06800800, "mac-gating", "CORE_MAC_GATING"),
    (INT8, "CNA_S_POINTER", 0xE, "kernel-pointer", "CNA_S_POINTER"),
    (INT8, "CORE_S_POINTER", 0xE, "kernel-pointer", "CORE_S_POINTER"),
    (INT8, "DPU_FEATURE_MODE_CFG", 0x1E5, "bitmap", "DPU_FEATURE_MODE_CFG"),
    (INT8, "DPU_FEATURE_MODE_CFG", 0x1E0, "stage", "DPU_FEATURE_MODE_CFG"),
    (INT8, "DPU_FEATURE_MODE_CFG", 0x1FC, "shape", "DPU_FEATURE_MODE_CFG"),
    (INT8, "DPU_FEATURE_MODE_CFG", 0x400001E4, "stage", "DPU_FEATURE_MODE_CFG"),
    (INT8, "DPU_DATA_FORMAT", 0x80000002, "type", "DPU_DATA_FORMAT"),
    (INT8, "DPU_DATA_FORMAT", 0x88000002, "type", "DPU_DATA_FORMAT"),
    (INT8, "DPU_DATA_FORMAT", 0xC0000000, "type", "DPU_DATA_FORMAT"),
    (INT8, "DPU_DATA_FORMAT", 0x40000000, "type", "DPU_DATA_FORMAT"),
    (INT8, "DPU_OFFSET_PEND", 1, "stage", "DPU_OFFSET_PEND"),
    (INT8, "DPU_DST_BASE_ADDR", 0x03000004, "alignment", "DPU_DST_BASE_ADDR"),
    (INT8, "DPU_DST_BASE_ADDR", 0x03000010, "memory", "DPU_DST_BASE_ADDR"),
    (INT8, "DPU_DST_SURF_STRIDE", 0, "overlap", "DPU_SURFACE_ADD"),
    (INT8, "DPU_DATA_CUBE_WIDTH", 1, "shape", "DPU_WDMA_SIZE_1"),
    (INT8, "DPU_DATA_CUBE_CHANNEL", 63, "shape", "DPU_DATA_CUBE_CHANNEL"),
    (INT8, "DPU_WDMA_SIZE_0", 63, "shape", "DPU_WDMA_SIZE_0"),
    (INT8, "DPU_WDMA_SIZE_1", 4 << 16, "shape", "DPU_WDMA_SIZE_1"),
    (INT8, "DPU_DATA_CUBE_NOTCH", 1, "notches", "DPU_DATA_CUBE_NOTCH"),
    (INT8, "DPU_BS_OW_CFG", 0x7FA, "size-e", "DPU_BS_OW_CFG"),
    (INT8, "DPU_BS_OW_OP", 5, "stage", "DPU_BS_OW_CFG"),
    (INT8, "DPU_BS_CFG", 0x30050, "stage", "DPU_BS_CFG"),  # algorithm 3
    (INT8, "DPU_BS_CFG", 0x20150, "unread-operand", "DPU_RDMA_BRDMA_CFG"),
    (INT8, "DPU_BN_CFG", 0x20150, "bn-dma", "DPU_BN_CFG"),
    (INT8, "DPU_EW_CFG", 0x10C203C0, "unread-operand", "DPU_RDMA_ERDMA_CFG"),
    (INT8, "DPU_EW_CFG", 0x10C20380, "stage", "DPU_EW_CFG"),  # operand from a register
    (INT8, "DPU_EW_CFG", 0x10C303C0, "stage", "DPU_EW_CFG"),  # division
    (INT8, "DPU_EW_CFG", 0x300, "stage", "DPU_EW_CFG"),  # tables behind integers
    (INT8, "DPU_OUT_CVT_SHIFT", 64, "output-conversion", "DPU_OUT_CVT_SHIFT"),
    (INT8, "DPU_RDMA_FEATURE_MODE_CFG", 0, "unfed-rdma", "DPU_RDMA_FEATURE_MODE_CFG"),
    (INT8, "DPU_RDMA_FEATURE_MODE_CFG", 0x7811, "shape", "DPU_RDMA_FEATURE_MODE_CFG"),
    (INT8, "DPU_RDMA_FEATURE_MODE_CFG", 0x7910, "stage", "DPU_RDMA_FEATURE_MODE_CFG"),
    (INT8, "DPU_RDMA_DATA_CUBE_HEIGHT", 4, "shape", "DPU_RDMA_DATA_CUBE_HEIGHT"),
    (INT8, "DPU_RDMA_SRC_DMA_CFG", 1 << 19, "stage", "DPU_RDMA_SRC_DMA_CFG"),
    (FP16, "DPU_OUT_CVT_SCALE", 1, "output-conversion", "DPU_OUT_CVT_SCALE"),
    (FP16, "DPU_EW_CFG", 0x108203C0, "stage", "DPU_EW_CFG"),  # addition without operand conversion
    (FP16, "DPU_EW_CFG", 0x108002C4, "stage", "DPU_EW_CFG"),  # multiplication with it
    (FP16, "DPU_BS_MUL_CFG", 1 << 8, None, None),  # harmless while the stage is bypassed
    (TF32, "CNA_PAD_CON1", 0, "tf32-k", "CNA_DATA_SIZE1"),
]


@pytest.mark.parametrize(
    ("shape", "register", "value", "rule", "named"), CASES, ids=lambda x: getattr(x, "kind", x)
)
def test_register_values(shape, register, value, rule, named):
    program = sheet.program(shape, {register: value})
    run = bench(shape)
    if rule is None:
        assert run.kick(program).programs == 1
        return
    with pytest.raises(StreamError) as caught:
        run.kick(program)
    error = caught.value
    assert error.rule is RULES[rule], str(error)
    assert error.place.register == named
    assert error.place.word == word_of(program, named)
    assert f"program 0, word {error.place.word}, {named}: " in str(error) or error.place.word is None
    # Nothing was stored by a program that was refused.
    assert (run.buffers["output"] == 0xA5).all()


def test_rules_are_all_reachable():
    # A rule that nothing raises or flags would be a promise that is not kept.
    used = set()
    for path in Path(emulation.__file__).parent.glob("*.py"):
        if path.name != "faults.py":
            used |= {name for name in RULES if f'"{name}"' in path.read_text()}
    assert used == set(RULES)


def kick_words(words, tasks=1, body=None, options=None, address=0x1000):
    """A kick of raw words alone in memory."""
    data = np.array(words, np.uint64).view(np.uint8)
    core = Core(Memory([Buffer("program", address, data)]), options or Options())
    return core.kick(address, len(words) - 4 if body is None else body, tasks)


TRAILER = build([], isa.ENABLE_CONV).words


@pytest.mark.parametrize(
    ("words", "rule", "word"),
    [
        ([isa.word(0x0401, 0x2008, 0), *TRAILER], "page-2000", 0),
        ([isa.word(0x0201, 0x2008, 0), *TRAILER], "page-2000", 0),
        ([0, isa.word(0x1234, 0x1008, 0), *TRAILER, 0], "unknown-target", 1),
        ([0, isa.word(0x0201, 0x1FFC, 0), *TRAILER, 0], "unknown-register", 1),
        ([0, isa.word(0x0201, 0x3014, 0), *TRAILER, 0], "unknown-register", 1),
        ([0, isa.word(0x0101, 0x0010, 0x2000), *TRAILER, 0], "trailer", 1),
        ([0, 0, isa.word(0x0041, 0, 0), isa.word(0x81, 8, 13)], "trailer", 1),
        ([0, isa.word(0x0101, 0x14, 0), 0, isa.word(0x81, 8, 13)], "trailer", 2),
        ([isa.write("CNA_PAD_CON0", 0), *TRAILER[1:]], "trailer", 0),
        ([isa.word(0x81, 8, 13), 0, 0, 0], "trailer", 0),
        ([0] * 8, "trailer", 7),
        ([*TRAILER[:3], isa.word(0x81, 8, 0x60)], "pooling", 3),
        ([*TRAILER[:3], isa.word(0x81, 8, 0x08)], "bitmap", 3),
        ([*TRAILER[:3], isa.word(0x81, 8, 0xFFFFFFFF)], "bitmap", 3),
    ],
)
def test_words(words, rule, word):
    with pytest.raises(StreamError) as caught:
        kick_words([*words, *[0] * (len(words) % 2)], body=len(words) - 4 if len(words) > 4 else 0)
    assert caught.value.rule is RULES[rule], str(caught.value)
    assert caught.value.place.word == word


def test_kicks_that_cannot_be():
    with pytest.raises(StreamError, match=r"0 programs in a kick, expected 1 to 4095"):
        kick_words(TRAILER, tasks=0)
    with pytest.raises(StreamError, match="4096 programs"):
        kick_words(TRAILER, tasks=4096)
    with pytest.raises(StreamError, match=r"3 programs in a kick, expected 1 to 2"):
        kick_words(TRAILER, tasks=3, options=Options(max_programs=2))
    with pytest.raises(StreamError, match="does not start on a multiple of 16"):
        kick_words(TRAILER, address=0x1008)
    with pytest.raises(StreamError, match=r"fetching 14 words: .*0x1020 does not lie in a buffer"):
        kick_words(TRAILER, body=10)


def test_programs_without_a_link_run_once():
    run = bench(INT8)
    program = sheet.program(INT8)
    words = program.at(run.addresses)
    run.buffers["code"] = np.concatenate([words, words]).view(np.uint8)
    core = Core(
        Memory([Buffer(role, run.addresses.get(role, 0x100000), data) for role, data in run.buffers.items()])
    )
    with pytest.raises(StreamError) as caught:
        core.kick(0x100000, program.body_words[0], tasks=2)
    assert caught.value.rule is RULES["unlinked"]
    assert (run.buffers["output"] != 0xA5).any()  # the first has run


def test_a_chain_that_bites_its_tail_ends():
    run = bench(INT8)
    two = chain([sheet.program(INT8), sheet.program(INT8)])
    words = two.at(run.addresses)
    # The second links back to the first.
    at = two.starts[1] + two.body_words[1]
    words[at] = isa.write("PC_BASE_ADDRESS", run.addresses["program"])
    words[at + 1] = isa.write("PC_REGISTER_AMOUNTS", 60)
    buffers = {**run.buffers, "program": words.view(np.uint8)}
    core = Core(Memory([Buffer(role, run.addresses[role], data) for role, data in buffers.items()]))
    with pytest.raises(StreamError) as caught:
        core.kick(run.addresses["program"], two.body_words[0], tasks=4000)
    assert caught.value.rule is RULES["loop"]
    assert caught.value.place.program == 2


def test_more_products_than_a_kick_may_have():
    with pytest.raises(StreamError, match="4096 products in a kick, expected at most 4095"):
        bench(INT8, Options(max_macs=4 * 32 * 32 - 1)).kick(sheet.program(INT8))


def test_a_partial_group_of_int8_results_hangs():
    program, buffers = flying("int8", 4, 48)
    with pytest.raises(StreamError) as caught:
        Bench(buffers).kick(program)
    assert caught.value.rule is RULES["partial-int8-group"]


@pytest.mark.parametrize(
    ("kind", "k", "n", "register"),
    [
        ("int8", 48, 32, "CNA_DATA_SIZE1"),
        ("int8", 32, 48, "CNA_WEIGHT_SIZE2"),
        ("int4", 32, 32, "CNA_WEIGHT_SIZE2"),
        ("fp16", 32, 24, "CNA_WEIGHT_SIZE2"),
        ("tf32", 24, 16, "CNA_DATA_SIZE1"),
    ],
)
def test_sizes_are_whole_groups(kind, k, n, register):
    shape = Shape(kind, {"int8": "int32", "int4": "int16"}.get(kind, "fp32"), 4, k, n)
    run = Bench({"input": np.zeros(4096, np.uint8), "weight": np.zeros(8192, np.uint8)})
    with pytest.raises(StreamError) as caught:
        run.kick(sheet.program(shape))
    assert caught.value.rule is RULES["multiple"]
    assert caught.value.place.register == register


def flying(kind: str, m: int, n: int) -> tuple[Program, dict[str, np.ndarray]]:
    """An addition of the DPU alone, and buffers for it."""
    shape = Shape("int8", "int32", m, 32, n, rdma=True)
    size = m * n * {"int8": 1, "int16": 2, "int32": 4, "fp16": 2}[kind]
    buffers = {role: np.zeros(size, np.uint8) for role in ("output", "operand")}
    return sheet.flying(shape, sheet.flying_add(m, n, kind)), buffers


def test_int8_alone_after_a_kick_with_a_product_hangs():
    program, buffers = flying("int8", 4, 32)
    run = bench(INT8)
    run.buffers.update({"operand": buffers["operand"]})
    run.buffers["output"] = np.zeros(512, np.uint8)
    run.kick(sheet.program(INT8))
    with pytest.raises(StreamError) as caught:
        run.kick(program)
    assert caught.value.rule is RULES["int8-after-product"]
    # The same pair in one chain, or int32 in a kick of its own, works.
    run = bench(INT8)
    run.buffers.update({"operand": buffers["operand"]})
    assert run.kick(chain([sheet.program(INT8), program])).programs == 2
    program, buffers = flying("int32", 4, 32)
    run.buffers.update({"operand": buffers["operand"]})
    assert run.kick(program).programs == 1


def test_two_int16_operands_behind_a_product_hang():
    program, buffers = flying("int16", 4, 32)
    run = bench(INT8)
    run.buffers.update({"operand": buffers["operand"]})
    assert run.kick(program).programs == 1
    with pytest.raises(StreamError) as caught:
        run.kick(chain([sheet.program(INT8), program]))
    assert caught.value.rule is RULES["int16-pair"]
    assert caught.value.place.program == 1


def test_int8_behind_a_wide_fp16_product_hangs():
    wide = Shape("fp16", "fp32", 1, 32, 8192)
    run = bench(wide)
    run.kick(sheet.program(wide))
    narrow = bench(Shape("int8", "int32", 1, 32, 32))
    narrow.core = run.core
    with pytest.raises(StreamError) as caught:
        narrow.kick(sheet.program(Shape("int8", "int32", 1, 32, 32)))
    assert caught.value.rule is RULES["wide-then-int8"]


def test_long_k_and_int16_results_of_int8_are_flagged():
    shape = Shape("int8", "int32", 8, 3840, 32)
    (flag,) = bench(shape).kick(sheet.program(shape)).flags
    assert (flag.rule.name, flag.place.register) == ("long-k", "CNA_DATA_SIZE1")
    shape = Shape("int8", "int16", 4, 32, 32)
    (flag,) = bench(shape).kick(sheet.program(shape)).flags
    assert flag.rule.name == "int16-output"
    assert "word" in str(flag)
    assert "DPU_DATA_FORMAT" in str(flag)


def test_room_for_less_than_a_group_of_kernels_is_flagged():
    shape = Shape("int8", "int32", 4, 1056, 32)
    (flag,) = bench(shape).kick(sheet.program(shape, {"CNA_CBUF_CON0": 0x11})).flags
    assert flag.rule.name == "weight-banks"
    assert "one group of kernels takes 33792 bytes, expected at most 32768 in 1 banks" in str(flag)


def test_flying_programs_need_their_input():
    program, buffers = flying("int32", 4, 32)
    run = Bench(buffers)
    off = _changed(program, "DPU_RDMA_FEATURE_MODE_CFG", 0x27891)
    with pytest.raises(StreamError, match="MRDMA is off, but its data are used"):
        run.kick(off)
    other = _changed(program, "DPU_RDMA_FEATURE_MODE_CFG", 0x17841)
    with pytest.raises(StreamError, match="its precisions are not the DPU's"):
        run.kick(other)


def _changed(program: Program, register: str, value: int) -> Program:
    at = word_of(program, register)
    words = list(program.words)
    words[at] = isa.write(register, value)
    return Program(tuple(words), program.relocations)


def test_an_output_may_not_leave_its_buffer_by_a_byte():
    run = bench(INT8)
    run.buffers["output"] = run.buffers["output"][:-1].copy()
    with pytest.raises(StreamError) as caught:
        run.kick(sheet.program(INT8))
    assert caught.value.rule is RULES["memory"]
    assert "0x3000200" in str(caught.value) or "does not lie in a buffer" in str(caught.value)


def test_addresses_beyond_4_gib_are_refused():
    with pytest.raises(StreamError, match="leave the 4 GiB"):
        bench(INT8).kick(sheet.program(INT8, {"DPU_DST_BASE_ADDR": 0xFFFFFFF0}))


def test_addresses_are_those_of_the_program():
    # The same words elsewhere: what was given to another role is not the program's memory.
    run = bench(INT8)
    run.addresses["input"] = 0x05000000
    with pytest.raises(StreamError, match="CNA_FEATURE_DATA_ADDR"):
        run.kick(sheet.program(INT8, {"CNA_FEATURE_DATA_ADDR": 0x01000000}))
    assert run.kick(sheet.program(INT8, {"CNA_FEATURE_DATA_ADDR": Address("input")})).programs == 1
