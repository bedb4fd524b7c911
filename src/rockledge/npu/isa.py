"""The registers of the RK3588 NPU as one table; words are made and read by it.

A command stream is 64-bit words: bits 63:48 the target (a block), 47:16 the value, 15:0 the register's
offset in the core's 64 KiB window. Names and bit positions are those of Mesa's `rocket` register file as
carried in public notes; an uncertain meaning is marked: [I] inferred, [X] sources
disagree, [?] not known. A field whose name ends in `_minus_1` holds its value less one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rockledge.errors import NpuError

WORD_BYTES: Final = 8
VALUE_LIMIT: Final = 1 << 32


@dataclass(frozen=True)
class Block:
    """A unit of one core: the target that addresses it in a word, and its page in the register window.

    `enable` is its bit in the enable word (None: the block has none).
    """

    name: str
    target: int
    base: int
    enable: int | None
    about: str

    def runs(self, bitmap: int) -> bool:
        """Whether an enable bitmap starts it."""
        return self.enable is not None and bool(bitmap >> self.enable & 1)


@dataclass(frozen=True)
class Field:
    """Bits `high`..`low` of a register, both included."""

    name: str
    high: int
    low: int
    about: str = ""

    @property
    def limit(self) -> int:
        """The largest value that fits."""
        return (1 << (self.high - self.low + 1)) - 1


@dataclass(frozen=True)
class Register:
    """A 32-bit register; `name` begins with the block's name."""

    name: str
    block: Block
    offset: int
    fields: tuple[Field, ...]
    about: str = ""


BLOCKS: Final = (
    Block("PC", 0x0101, 0x0000, None, "fetches command words, follows chains, raises interrupts"),
    Block("CNA", 0x0201, 0x1000, 0, "reads activations and weights into the convolution buffer"),
    Block("CORE", 0x0801, 0x3000, 2, "multiplies and accumulates"),
    Block("DPU", 0x1001, 0x4000, 3, "post-processing stages, output conversion, write-back"),
    Block("DPU_RDMA", 0x2001, 0x5000, 4, "reads operands for the DPU"),
    Block("PPU", 0x4001, 0x6000, 5, "pooling"),
    Block("PPU_RDMA", 0x8001, 0x7000, 6, "reads for pooling"),
)
BLOCK_BY_TARGET: Final = {block.target: block for block in BLOCKS}
BLOCK_BY_NAME: Final = {block.name: block for block in BLOCKS}

# Targets that address no block: words that are skipped, and the two that end a program.
PADDING_TARGETS: Final = frozenset({0x0000, 0x0001})
MARKER_TARGET: Final = 0x0041
ENABLE_TARGET: Final = 0x0081
ENABLE_OFFSET: Final = 0x0008

# Enable bitmaps in use.
ENABLE_CONV: Final = 0x0D
ENABLE_CONV_RDMA: Final = 0x1D
ENABLE_FLYING: Final = 0x18
ENABLE_POOL: Final = 0x60

# The interrupt mask of the end of a program that ends in the DPU.
INT_DPU: Final = 0x300


@dataclass(frozen=True)
class Precision:
    """A number type: its codes in CNA and CORE, and in the DPU (None: the block has no such code)."""

    name: str
    bits: int
    cna: int | None
    dpu: int | None


# tf32 has no DPU code: its programs use fp32 there.
PRECISIONS: Final = {
    precision.name: precision
    for precision in (
        Precision("int4", 4, 6, 6),
        Precision("int8", 8, 0, 0),
        Precision("int16", 16, 1, 1),
        Precision("fp16", 16, 2, 2),
        Precision("bf16", 16, 3, 3),
        Precision("tf32", 32, 7, None),
        Precision("int32", 32, None, 4),
        Precision("fp32", 32, None, 5),
    )
}
CNA_PRECISION: Final = {p.cna: p for p in PRECISIONS.values() if p.cna is not None}
DPU_PRECISION: Final = {p.dpu: p for p in PRECISIONS.values() if p.dpu is not None}

CONV_MODES: Final = {0: "normal", 3: "depthwise"}
STAGE_ALU: Final = {0: "max", 1: "min", 2: "add", 4: "subtract"}
EW_ALU: Final = {
    0: "max",
    1: "min",
    2: "add",
    3: "divide",
    4: "subtract",
    5: "absolute",
    6: "negate",
    7: "floor",
    8: "ceil",
}
EW_DATA_MODES: Final = {0: "per channel", 1: "per pixel", 2: "per channel by pixel"}
EW_DATA_BITS: Final = {0: 4, 1: 8, 2: 16, 3: 32}
OUTPUT_TO_MEMORY: Final = 2


def _bits(text: str) -> tuple[Field, ...]:
    """Fields from lines `high:low name about` or `bit name about`."""
    fields = []
    for line in text.strip().splitlines():
        place, name, *about = line.split(maxsplit=2)
        high, _, low = place.partition(":")
        fields.append(Field(name, int(high), int(low or high), about[0] if about else ""))
    return tuple(fields)


def _whole(name: str, about: str = "") -> tuple[Field, ...]:
    return (Field(name, 31, 0, about),)


_POINTER = _bits("""
    16 executer group in execution
    5 executer_clear
    4 pointer_clear
    3 pointer_mode
    2 executer_ping_pong
    1 pointer_ping_pong
    0 pointer group that writes go to
""")
_STAGE_CFG = _bits("""
    19:16 alu_algorithm 0 max, 1 min, 2 add, 4 subtract
    8 alu_source 1: operand by DMA
    7 relux_enable
    6 relu_bypass
    5 mul_prelu
    4 mul_bypass
    1 alu_bypass
    0 bypass whole stage
""")
_STAGE_MUL = _bits("""
    31:16 operand int16, or fp16 in the float pipeline
    13:8 shift
    1 truncate_source
    0 source 1: operand by DMA
""")
_CVT = _bits("""
    31:16 scale
    15:0 offset
""")
_SURFACE = _bits("31:4 stride bytes, without the low four bits")

_TABLE: Final[tuple[tuple[str, int, str, tuple[Field, ...], str], ...]] = (
    ("PC", 0x0008, "OPERATION_ENABLE", _bits("""
        6 ppu_rdma
        5 ppu
        4 dpu_rdma
        3 dpu
        2 core
        0 cna
     """), "a kick by MMIO; in a stream it is the value of the enable word"),
    ("PC", 0x0010, "BASE_ADDRESS", _whole("address"), "of the next program, 16-byte aligned"),
    ("PC", 0x0014, "REGISTER_AMOUNTS", _bits("15:0 amount pairs of words to fetch, minus one"), ""),
    ("PC", 0x0020, "INTERRUPT_MASK", _bits("16:0 mask"), ""),
    ("PC", 0x0024, "INTERRUPT_CLEAR", _bits("16:0 clear"), ""),
    ("PC", 0x002C, "INTERRUPT_RAW_STATUS", _whole("status"), "bits 31:30 read 1 when idle"),
    ("PC", 0x0030, "TASK_CON", _bits("""
        13 clear_count
        12 ping_pong
        11:0 number
     """), ""),
    ("PC", 0x0034, "TASK_DMA_BASE_ADDR", _whole("address"), ""),
    ("PC", 0x003C, "TASK_STATUS", _bits("11:0 counter"), "does not show completion"),
    ("CNA", 0x1004, "S_POINTER", _POINTER, "the kernel's: a stream must not write it"),
    ("CNA", 0x100C, "CONV_CON1", _bits("""
        30 nonalign_dma
        29 group_line_off selects the row-major address rule
        16 deconv
        15:12 argb_in
        9:7 proc_precision
        6:4 in_precision
        3:0 conv_mode 0 normal, 3 depthwise
     """), ""),
    ("CNA", 0x1010, "CONV_CON2", _bits("""
        23:16 kernel_group
        13:4 feature_grains a fetch hint, no address term
        2 csc_weight_off
        1 csc_data_off
        0 fifo_reset
     """), ""),
    ("CNA", 0x1014, "CONV_CON3", _bits("""
        30:28 nn_mode cooperation of cores, not used by any source [?]
        25:21 dilation_y
        20:16 dilation_x
        13:11 deconv_stride_y
        10:8 deconv_stride_x
        5:3 stride_y
        2:0 stride_x
     """), ""),
    ("CNA", 0x1020, "DATA_SIZE0", _bits("""
        26:16 width
        10:0 height
     """), ""),
    ("CNA", 0x1024, "DATA_SIZE1", _bits("""
        29:16 real_channels_minus_1
        15:0 channels
     """), ""),
    ("CNA", 0x1028, "DATA_SIZE2", _bits("10:0 output_width"), ""),
    ("CNA", 0x102C, "DATA_SIZE3", _bits("""
        23:22 surf_mode
        21:0 output_pixels
     """), ""),
    ("CNA", 0x1030, "WEIGHT_SIZE0", _whole("bytes", "of all kernels"), ""),
    ("CNA", 0x1034, "WEIGHT_SIZE1", _bits("18:0 bytes_per_kernel"), ""),
    ("CNA", 0x1038, "WEIGHT_SIZE2", _bits("""
        28:24 kernel_width
        20:16 kernel_height
        13:0 kernels
     """), ""),
    ("CNA", 0x1040, "CBUF_CON0", _bits("""
        13 weight_reuse
        12 data_reuse
        10:8 fc_data_bank anything but 0 corrupts
        7:4 weight_bank
        3:0 data_bank
     """), "banks of 32 KiB"),
    ("CNA", 0x1044, "CBUF_CON1", _bits("13:0 data_entries of 64 bytes, per line"), ""),
    ("CNA", 0x104C, "CVT_CON0", _bits("""
        27:22 truncate_3
        21:16 truncate_2
        15:10 truncate_1
        9:4 truncate_0
        3 data_sign
        2 round_type
        1 cvt_type
        0 bypass
     """), "input conversion"),
    ("CNA", 0x1050, "CVT_CON1", _CVT, ""),
    ("CNA", 0x1054, "CVT_CON2", _CVT, ""),
    ("CNA", 0x1058, "CVT_CON3", _CVT, ""),
    ("CNA", 0x105C, "CVT_CON4", _CVT, ""),
    ("CNA", 0x1060, "FC_CON0", _whole("value"), "fully connected mode: 0"),
    ("CNA", 0x1064, "FC_CON1", _whole("value"), ""),
    ("CNA", 0x1068, "PAD_CON0", _bits("""
        7:4 left
        3:0 top
     """), ""),
    ("CNA", 0x1070, "FEATURE_DATA_ADDR", _whole("address"), ""),
    ("CNA", 0x1074, "FC_CON2", _whole("value"), ""),
    ("CNA", 0x1078, "DMA_CON0", _bits("""
        31 ov4k_bypass
        19:16 weight_burst 15: 16 beats
        3:0 data_burst
     """), ""),
    ("CNA", 0x107C, "DMA_CON1", _bits("27:0 line_stride in 16-byte units"), ""),
    ("CNA", 0x1080, "DMA_CON2", _bits("27:0 surface_stride in 16-byte units, wraps"), ""),
    ("CNA", 0x1084, "FC_DATA_SIZE0", _bits("""
        29:16 width
        10:0 height
     """), "mirrors DATA_SIZE0"),
    ("CNA", 0x1088, "FC_DATA_SIZE1", _bits("15:0 channels"), "mirrors DATA_SIZE1"),
    ("CNA", 0x1090, "CLK_GATE", _whole("value"), "clock gating overrides"),
    ("CNA", 0x1100, "DCOMP_CTRL", _bits("""
        3 bypass
        2:0 control
     """), "weight decompression"),
    ("CNA", 0x1104, "DCOMP_REGNUM", _whole("value"), ""),
    ("CNA", 0x1110, "DCOMP_ADDR0", _whole("address"), "the weights, compressed or not"),
    *(("CNA", 0x1140 + 4 * lane, f"DCOMP_AMOUNT{lane}", _whole("value"), "") for lane in range(16)),
    ("CNA", 0x1180, "CVT_CON5", _whole("mask"), "per-channel input conversion"),
    ("CNA", 0x1184, "PAD_CON1", _whole("pad_value"), ""),
    ("CORE", 0x3004, "S_POINTER", _POINTER, "the kernel's: a stream must not write it"),
    ("CORE", 0x300C, "MAC_GATING", _bits("26:0 gating"), "reset 0x07800800; leave unwritten"),
    ("CORE", 0x3010, "MISC_CFG", _bits("""
        19:14 soft_gating
        10:8 proc_precision
        1 dw_en depthwise
        0 qd_en no effect seen [?]
     """), ""),
    ("CORE", 0x3014, "DATAOUT_SIZE_0", _bits("""
        31:16 height_minus_1
        15:0 width_minus_1
     """), ""),
    ("CORE", 0x3018, "DATAOUT_SIZE_1", _bits("15:0 channels_minus_1"), ""),
    ("CORE", 0x301C, "CLIP_TRUNCATE", _bits("""
        6 round_type
        4:0 truncate
     """), ""),
    ("CORE", 0x3030, "UNKNOWN_3030", _whole("value"), "[?] no effect seen; every program writes 0"),
    ("DPU", 0x4004, "S_POINTER", _POINTER, ""),
    ("DPU", 0x400C, "FEATURE_MODE_CFG", _bits("""
        31 comb_use
        30 tp_en transposed write
        29:26 rgp_type
        25 nonalign
        24:9 surf_len
        8:5 burst_len
        4:3 conv_mode
        2:1 output_mode 2: write to memory
        0 flying_mode main input by MRDMA, not from the accumulator
     """), ""),
    ("DPU", 0x4010, "DATA_FORMAT", _bits("""
        31:29 out_precision
        28:26 in_precision
        25:16 ew_truncate_negative
        15:10 bn_shift_negative
        9:4 bs_shift_negative
        3 mc_surf_out
        2:0 proc_precision
     """), ""),
    ("DPU", 0x4014, "OFFSET_PEND", _bits("15:0 value"), ""),
    ("DPU", 0x4020, "DST_BASE_ADDR", _whole("address"), ""),
    ("DPU", 0x4024, "DST_SURF_STRIDE", _SURFACE, ""),
    ("DPU", 0x4030, "DATA_CUBE_WIDTH", _bits("12:0 width_minus_1"), ""),
    ("DPU", 0x4034, "DATA_CUBE_HEIGHT", _bits("""
        24:22 minmax_ctl
        12:0 height_minus_1
     """), ""),
    ("DPU", 0x4038, "DATA_CUBE_NOTCH", _bits("""
        28:16 notch_1
        12:0 notch_0
     """), "atoms of 16 bytes; why there are two is not known [?]"),
    ("DPU", 0x403C, "DATA_CUBE_CHANNEL", _bits("""
        28:16 original_channels_minus_1
        12:0 channels_minus_1
     """), ""),
    ("DPU", 0x4040, "BS_CFG", _STAGE_CFG, ""),
    ("DPU", 0x4044, "BS_ALU_CFG", _whole("operand"), ""),
    ("DPU", 0x4048, "BS_MUL_CFG", _STAGE_MUL, ""),
    ("DPU", 0x404C, "BS_RELUX_CMP", _whole("value"), ""),
    ("DPU", 0x4050, "BS_OW_CFG", _bits("""
        31:28 rgp_cnter
        27 tp_org_en
        10:8 size_e_2
        7:5 size_e_1
        4:2 size_e_0
        1 od_bypass no effect seen on raw int32 [?]
        0 ow_source
     """), "size_e + 1 is the 16-byte atoms of a pixel and kernel group [I]"),
    ("DPU", 0x4054, "BS_OW_OP", _bits("15:0 value"), ""),
    ("DPU", 0x4058, "WDMA_SIZE_0", _bits("""
        27 tp_precision
        26:16 size_c
        12:0 channels_minus_1
     """), ""),
    ("DPU", 0x405C, "WDMA_SIZE_1", _bits("""
        28:16 height_minus_1
        12:0 width_minus_1
     """), ""),
    ("DPU", 0x4060, "BN_CFG", _STAGE_CFG, ""),
    ("DPU", 0x4064, "BN_ALU_CFG", _whole("operand"), ""),
    ("DPU", 0x4068, "BN_MUL_CFG", _STAGE_MUL, ""),
    ("DPU", 0x406C, "BN_RELUX_CMP", _whole("value"), ""),
    ("DPU", 0x4070, "EW_CFG", _bits("""
        31 cvt_type
        30 cvt_round
        29:28 data_mode 0 per channel, 1 per pixel, 2 both
        23:22 edata_size 0 4-bit, 1 8-bit, 2 16-bit, 3 32-bit
        21 equal_en
        20 binary_en
        19:16 alu_algorithm
        10 relux_enable
        9 relu_bypass
        8 op_cvt_bypass
        7 lut_bypass
        6 op_source 1: operand by DMA
        5 mul_prelu
        2 op_type 0 ALU, 1 MUL
        1 op_bypass
        0 bypass whole stage
     """), ""),
    ("DPU", 0x4074, "EW_CVT_OFFSET", _whole("offset"), ""),
    ("DPU", 0x4078, "EW_CVT_SCALE", _bits("""
        31:22 truncate
        21:16 shift
        15:0 scale
     """), ""),
    ("DPU", 0x407C, "EW_RELUX_CMP", _whole("value"), ""),
    ("DPU", 0x4080, "OUT_CVT_OFFSET", _whole("offset", "signed"), ""),
    ("DPU", 0x4084, "OUT_CVT_SCALE", _bits("""
        16 fp32_to_fp16
        15:0 scale signed
     """), ""),
    ("DPU", 0x4088, "OUT_CVT_SHIFT", _bits("""
        31 cvt_type
        30 cvt_round 1: ties away from zero [X]
        19:12 minus_exp
        11:0 shift
     """), ""),
    *(("DPU", 0x4090 + 4 * i, f"EW_OP_VALUE_{i}", _whole("operand"), "") for i in range(8)),
    ("DPU", 0x40C0, "SURFACE_ADD", _SURFACE, ""),
    ("DPU", 0x40C4, "UNKNOWN_40C4", _whole("value"), "[?] written as 0 or not at all"),
    ("DPU", 0x4100, "LUT_ACCESS_CFG", _bits("""
        17 write
        16 table 0 LE, 1 LO
        9:0 address counts up with every data word
     """), ""),
    ("DPU", 0x4104, "LUT_ACCESS_DATA", _bits("15:0 value signed"), ""),
    ("DPU", 0x4108, "LUT_CFG", _whole("value", "0x68: hybrid and overflow priority, mux 2"), ""),
    ("DPU", 0x410C, "LUT_INFO", _bits("""
        23:16 lo_select
        15:8 le_select
     """), "segment of 2^select"),
    ("DPU", 0x4110, "LUT_LE_START", _whole("start", "signed"), ""),
    ("DPU", 0x4114, "LUT_LE_END", _whole("end", "signed"), "name by position [I]; not needed"),
    ("DPU", 0x4118, "LUT_LO_START", _whole("start", "signed"), "name by position [I]; not needed"),
    ("DPU", 0x411C, "LUT_LO_END", _whole("end", "signed"), ""),
    ("DPU", 0x4120, "LUT_LE_SLOPE_SCALE", _bits("""
        31:16 overflow
        15:0 underflow
     """), "overflow half by position [I]"),
    ("DPU", 0x4124, "LUT_LE_SLOPE_SHIFT", _bits("""
        9:5 overflow
        4:0 underflow
     """), "overflow half by position [I]"),
    ("DPU", 0x4128, "LUT_LO_SLOPE_SCALE", _bits("""
        31:16 overflow
        15:0 underflow
     """), "halves by position [I]"),
    ("DPU", 0x412C, "LUT_LO_SLOPE_SHIFT", _bits("""
        9:5 overflow
        4:0 underflow
     """), "halves by position [I]"),
    ("DPU_RDMA", 0x5004, "S_POINTER", _POINTER, ""),
    ("DPU_RDMA", 0x500C, "DATA_CUBE_WIDTH", _bits("12:0 width_minus_1"), ""),
    ("DPU_RDMA", 0x5010, "DATA_CUBE_HEIGHT", _bits("""
        28:16 ew_line_notch
        12:0 height_minus_1
     """), ""),
    ("DPU_RDMA", 0x5014, "DATA_CUBE_CHANNEL", _bits("12:0 channels_minus_1"), ""),
    ("DPU_RDMA", 0x5018, "SRC_BASE_ADDR", _whole("address"), "MRDMA"),
    ("DPU_RDMA", 0x501C, "BRDMA_CFG", _bits("4:1 data_use 1 ALU operand, 2 CPEND, 4 MUL operand, 8 TRT"), ""),
    ("DPU_RDMA", 0x5020, "BS_BASE_ADDR", _whole("address"), ""),
    ("DPU_RDMA", 0x5028, "NRDMA_CFG", _bits("4:1 data_use"), "hangs when used"),
    ("DPU_RDMA", 0x502C, "BN_BASE_ADDR", _whole("address"), ""),
    ("DPU_RDMA", 0x5034, "ERDMA_CFG", _bits("""
        31:30 data_mode 0 per channel, 1 per pixel, 2 both
        29 surf_mode
        28 nonalign
        3:2 data_size 0 4-bit, 1 8-bit, 2 16-bit, 3 32-bit
        1 ov4k
        0 disable
     """), ""),
    ("DPU_RDMA", 0x5038, "EW_BASE_ADDR", _whole("address"), ""),
    ("DPU_RDMA", 0x5040, "EW_SURF_STRIDE", _SURFACE, ""),
    ("DPU_RDMA", 0x5044, "FEATURE_MODE_CFG", _bits("""
        17:15 in_precision
        14:11 burst_len
        10:8 comb_use
        7:5 proc_precision
        4 mrdma_disable
        3 fp16_to_fp32
        2:1 conv_mode
        0 flying_mode
     """), ""),
    ("DPU_RDMA", 0x5048, "SRC_DMA_CFG", _bits("""
        31:19 line_notch
        13 pool_method
        12 unpool
     """), "lower bits are not documented [?]"),
    ("DPU_RDMA", 0x504C, "SURF_NOTCH", _SURFACE, ""),
    ("DPU_RDMA", 0x5064, "PAD_CFG", _whole("value"), ""),
    ("DPU_RDMA", 0x5068, "WEIGHT", _whole("weights"), "arbitration; 0x01010101"),
    ("DPU_RDMA", 0x506C, "EW_SURF_NOTCH", _SURFACE, ""),
    ("PPU", 0x6004, "S_POINTER", _POINTER, "by analogy with the other blocks [I]"),
    ("PPU_RDMA", 0x7004, "S_POINTER", _POINTER, "by analogy with the other blocks [I]"),
)  # fmt: skip

REGISTERS: Final = {
    register.name: register
    for register in (
        Register(f"{block}_{name}", BLOCK_BY_NAME[block], offset, fields, about)
        for block, offset, name, fields, about in _TABLE
    )
}
_BY_WORD: Final = {(register.block.target, register.offset): register for register in REGISTERS.values()}


def register_named(name: str) -> Register:
    """The register of that name. Raises NpuError for an unknown one."""
    if name not in REGISTERS:
        raise NpuError(f"there is no NPU register {name}; names look like CNA_CONV_CON1")
    return REGISTERS[name]


def register_of(target: int, offset: int) -> Register | None:
    """The register that a word with this target and offset writes; None when the table has none."""
    return _BY_WORD.get((target, offset))


def word(target: int, offset: int, value: int) -> int:
    """The 64-bit command word. Raises NpuError for a part that does not fit."""
    for part, number, limit in (
        ("target", target, 1 << 16),
        ("offset", offset, 1 << 16),
        ("value", value, VALUE_LIMIT),
    ):
        if not 0 <= number < limit:
            raise NpuError(f"a command word's {part} is {number:#x}, expected 0 to {limit - 1:#x}")
    return target << 48 | value << 16 | offset


def split(command: int) -> tuple[int, int, int]:
    """Target, value and offset of a 64-bit command word."""
    return command >> 48 & 0xFFFF, command >> 16 & 0xFFFFFFFF, command & 0xFFFF


def write(name: str, value: int) -> int:
    """The word that writes `value` to the register of that name."""
    register = register_named(name)
    return word(register.block.target, register.offset, value)


def encode(name: str, **fields: int) -> int:
    """The 32-bit value of a register from its fields; fields not given are 0.

    Raises NpuError naming register, field and limit for an unknown field or a value that does not fit.
    """
    register = register_named(name)
    known = {field.name: field for field in register.fields}
    value = 0
    for field_name, number in fields.items():
        if field_name not in known:
            raise NpuError(f"{name} has no field {field_name}; it has {', '.join(known)}")
        field = known[field_name]
        if not 0 <= number <= field.limit:
            raise NpuError(f"{name}.{field_name} is {number}, expected 0 to {field.limit}")
        value |= number << field.low
    return value


def decode(register: Register | str, value: int) -> dict[str, int]:
    """The fields of a register's 32-bit value, in the order of the table."""
    if isinstance(register, str):
        register = register_named(register)
    return {field.name: value >> field.low & field.limit for field in register.fields}


def unnamed_bits(register: Register, value: int) -> int:
    """The bits of a value that belong to no field of the register."""
    for field in register.fields:
        value &= ~(field.limit << field.low)
    return value
