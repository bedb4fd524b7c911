"""The two programs everything is made of: one int8 tile multiplied, and two blocks of int32 sums added.

Both are relocatable (`stream.Address`) and write every register the result depends on, so that nothing
stale from another program can matter. DPU_RDMA stays in the enable word with its reads switched off: such
bytes have run on the vendor driver and on mainline [H].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from rockledge.board.boards import PROGRAMMED
from rockledge.errors import NpuError
from rockledge.npu.isa import (
    CNA_PRECISION,
    DPU_PRECISION,
    ENABLE_CONV_RDMA,
    ENABLE_FLYING,
    OUTPUT_TO_MEMORY,
    REGISTERS,
    encode,
)
from rockledge.npu.layout import ATOM_BYTES, INT8, SUMS_IN_ATOM
from rockledge.npu.programs.tiling import Reuse
from rockledge.npu.stream import Address, Program, build

INPUT: Final = "input"
WEIGHT: Final = "weight"
OUTPUT: Final = "output"
SCRATCH: Final = "scratch"
_A, _B, _C, _PART = Address(INPUT), Address(WEIGHT), Address(OUTPUT), Address(SCRATCH)

BANKS: Final = int(PROGRAMMED.value("npu_cbuf_banks"))
BANK_BYTES: Final = int(PROGRAMMED.value("npu_cbuf_bank_bytes"))
SUM_BYTES: Final = 4
# [H] Some pairs of rows and inputs read beyond their last data bank; one more for all is GRU's answer. Each
# row begins a new entry of 64 bytes [I], which wastes at most 32 bytes of it: one bank is always enough.
SPARE_BANKS: Final = 1
# GRN and ORK: a 13-bit size at its maximum is silently wrong in its tail, so the largest one is not used.
LARGEST_SIZE: Final = 8192 - INT8.group
# FEATURE_GRAINS holds rows + 1 in ten bits. Above, it wraps, which one generator does without harm.
LARGEST_ROWS: Final = 1020
STRIDE_WRAP: Final = 1 << 28
# Written by the kernel driver (the pointers), or best left at their reset values.
_LEFT_ALONE: Final = ("CNA_S_POINTER", "CORE_S_POINTER", "CNA_CLK_GATE", "CORE_MAC_GATING")

Write = tuple[str, int | Address]

_CNA_CODE: Final = {precision.name: code for code, precision in CNA_PRECISION.items()}
_DPU_CODE: Final = {precision.name: code for code, precision in DPU_PRECISION.items()}
_INT8_CNA, _INT8_DPU, _INT32_DPU = _CNA_CODE["int8"], _DPU_CODE["int8"], _DPU_CODE["int32"]
BURST: Final = 15
_CONV_ATOMS: Final = INT8.group * SUM_BYTES // ATOM_BYTES  # of one pixel and kernel group, SIZE_E + 1
_PING_PONG: Final = 0xE
# Input conversion, and the stages that do nothing, as every generator writes them.
CVT_UNITY: Final = {f"CNA_CVT_CON{i}": encode(f"CNA_CVT_CON{i}", scale=1) for i in (1, 2, 3, 4)}
STAGE_OFF: Final = {"bypass": 1, "alu_bypass": 1, "mul_bypass": 1, "relu_bypass": 1}
EW_OFF: Final = {"bypass": 1, "op_bypass": 1, "lut_bypass": 1, "op_cvt_bypass": 1, "relu_bypass": 1}


def data_banks(rows: int, inputs: int) -> int:
    """Banks of the convolution buffer that a tile of activations takes, with the spare one of int8."""
    return -(-rows * inputs // BANK_BYTES) + SPARE_BANKS


def least_weight_banks(inputs: int) -> int:
    """Banks that one group of 32 kernels takes: the least with which weights can be streamed."""
    return -(-inputs * INT8.group // BANK_BYTES)


def product_program(
    rows: int,
    inputs: int,
    columns: int,
    *,
    banks: tuple[int, int] | None = None,
    reuse: Reuse = Reuse.NONE,
    a: Address = _A,
    b: Address = _B,
    c: Address = _C,
) -> Program:
    """One program for int32 C[rows, columns] = int8 A[rows, inputs] x B[inputs, columns], native layouts.

    `banks`: (data, weight), by default the least data banks and the rest. Raises NpuError naming the limit
    for a tile that the hardware cannot take: rows are 1 or a multiple of 4 [H: MTX], at most 1020; inputs
    and columns multiples of 32 [H]; activations with a spare bank and one group of kernels fit 12 banks.
    """
    data, weight = (
        banks if banks is not None else (data_banks(rows, inputs), BANKS - data_banks(rows, inputs))
    )
    check_product(rows, inputs, columns, data, weight)
    writes = product_writes(rows, inputs, columns, (data, weight), reuse, (a, b, c))
    return build(complete(writes, ("CNA", "CORE", "DPU", "DPU_RDMA")), ENABLE_CONV_RDMA)


def addition_program(
    rows: int,
    columns: int,
    *,
    total: Address = _C,
    part: Address = _PART,
) -> Program:
    """int32 sums at `total` += those at `part`, [rows, columns] each, as one program of the DPU alone.

    Both blocks are contiguous, so they are read as one surface of rows x (columns / 4) atoms of 16 bytes: no
    stride between surfaces matters, of which several readings exist. The addition saturates and is exact
    inside int32 [H: HAP]. That it may write where it reads is inferred [I]: atoms stream in order, each is
    read before it is written. Raises NpuError naming the limit.
    """
    lines = columns // SUMS_IN_ATOM
    if columns % SUMS_IN_ATOM or columns < 1:
        raise NpuError(
            f"an addition has {columns} columns, expected a multiple of {SUMS_IN_ATOM}; pad the columns"
        )
    if not 1 <= rows <= LARGEST_SIZE:
        raise NpuError(f"an addition has {rows} rows, expected 1 to {LARGEST_SIZE}; split the rows")
    if lines > LARGEST_SIZE:
        raise NpuError(
            f"an addition has {columns} columns, expected at most {LARGEST_SIZE * SUMS_IN_ATOM}; "
            "split the columns"
        )
    writes = _addition_writes(rows, lines, total, part)
    return build(complete(writes, ("DPU", "DPU_RDMA")), ENABLE_FLYING)


def check_product(rows: int, inputs: int, columns: int, data: int, weight: int) -> None:
    if not 1 <= rows <= LARGEST_ROWS or (rows > 1 and rows % 4):
        raise NpuError(
            f"a tile has {rows} rows, expected 1 or a multiple of 4, at most {LARGEST_ROWS} "
            "(CNA_CONV_CON2.feature_grains holds rows + 1); pad or split the rows"
        )
    if columns < 1 or columns % INT8.group or columns > LARGEST_SIZE:
        raise NpuError(
            f"a tile has {columns} columns, expected a multiple of {INT8.group} up to {LARGEST_SIZE} "
            "(DPU_DATA_CUBE_CHANNEL has 13 bits); pad or split the columns"
        )
    if inputs < 1 or inputs % INT8.run:
        raise NpuError(f"a tile has {inputs} inputs, expected a multiple of {INT8.run}; pad with zeros")
    if data < data_banks(rows, inputs) or weight < least_weight_banks(inputs) or data + weight > BANKS:
        raise NpuError(
            f"a tile of {rows} rows and {inputs} inputs has {data} data and {weight} weight banks, expected "
            f"at least {data_banks(rows, inputs)} (one spare) and {least_weight_banks(inputs)} of "
            f"{BANKS} banks of {BANK_BYTES} bytes; use fewer rows, or split the inputs"
        )


def product_writes(
    rows: int,
    inputs: int,
    columns: int,
    banks: tuple[int, int],
    reuse: Reuse,
    places: tuple[Address, Address, Address],
) -> Iterator[Write]:
    """The registers of a product that are not 0: the column form, width 1 and height `rows`."""
    a, b, c = places
    high, wide = rows - 1, columns - 1
    yield "CNA_CONV_CON1", encode("CNA_CONV_CON1", in_precision=_INT8_CNA, proc_precision=_INT8_CNA)
    yield "CNA_CONV_CON2", encode("CNA_CONV_CON2", feature_grains=rows + 1)
    yield "CNA_CONV_CON3", encode("CNA_CONV_CON3", stride_x=1, stride_y=1)
    yield "CNA_DATA_SIZE0", encode("CNA_DATA_SIZE0", width=1, height=rows)
    yield "CNA_DATA_SIZE1", encode("CNA_DATA_SIZE1", channels=inputs, real_channels_minus_1=inputs - 1)
    yield "CNA_DATA_SIZE2", encode("CNA_DATA_SIZE2", output_width=1)
    yield "CNA_DATA_SIZE3", encode("CNA_DATA_SIZE3", output_pixels=rows)
    yield "CNA_WEIGHT_SIZE0", encode("CNA_WEIGHT_SIZE0", bytes=inputs * columns)
    yield "CNA_WEIGHT_SIZE1", encode("CNA_WEIGHT_SIZE1", bytes_per_kernel=inputs)
    yield "CNA_WEIGHT_SIZE2", encode("CNA_WEIGHT_SIZE2", kernel_width=1, kernel_height=1, kernels=columns)
    yield (
        "CNA_CBUF_CON0",
        encode(
            "CNA_CBUF_CON0",
            data_bank=banks[0],
            weight_bank=banks[1],
            data_reuse=int(reuse is Reuse.DATA),
            weight_reuse=int(reuse is Reuse.WEIGHT),
        ),
    )
    yield "CNA_CBUF_CON1", encode("CNA_CBUF_CON1", data_entries=-(-inputs // 64))
    yield "CNA_CVT_CON0", encode("CNA_CVT_CON0", bypass=1, cvt_type=1, data_sign=1)
    yield from CVT_UNITY.items()
    yield "CNA_FEATURE_DATA_ADDR", a
    yield "CNA_DMA_CON0", encode("CNA_DMA_CON0", weight_burst=BURST, data_burst=BURST)
    yield "CNA_DMA_CON1", encode("CNA_DMA_CON1", line_stride=4)
    yield "CNA_DMA_CON2", encode("CNA_DMA_CON2", surface_stride=(rows - 4) % STRIDE_WRAP)
    yield "CNA_FC_DATA_SIZE0", encode("CNA_FC_DATA_SIZE0", width=1, height=rows)
    yield "CNA_FC_DATA_SIZE1", encode("CNA_FC_DATA_SIZE1", channels=inputs)
    yield "CNA_DCOMP_ADDR0", b
    yield "CORE_MISC_CFG", encode("CORE_MISC_CFG", proc_precision=_INT8_CNA)
    yield "CORE_DATAOUT_SIZE_0", encode("CORE_DATAOUT_SIZE_0", height_minus_1=high)
    yield "CORE_DATAOUT_SIZE_1", encode("CORE_DATAOUT_SIZE_1", channels_minus_1=wide)
    yield (
        "DPU_FEATURE_MODE_CFG",
        encode("DPU_FEATURE_MODE_CFG", burst_len=BURST, output_mode=OUTPUT_TO_MEMORY),
    )
    yield (
        "DPU_DATA_FORMAT",
        encode(
            "DPU_DATA_FORMAT",
            in_precision=_INT8_DPU,
            proc_precision=_INT8_DPU,
            out_precision=_INT32_DPU,
        ),
    )
    size_e = _CONV_ATOMS - 1
    yield from dpu_writes(c, (0, high, wide), size_e, surface=rows * ATOM_BYTES)
    yield "DPU_EW_CFG", encode("DPU_EW_CFG", **EW_OFF)
    yield "DPU_RDMA_ERDMA_CFG", encode("DPU_RDMA_ERDMA_CFG", disable=1)
    yield "DPU_RDMA_FEATURE_MODE_CFG", encode("DPU_RDMA_FEATURE_MODE_CFG", burst_len=BURST, mrdma_disable=1)


def _addition_writes(rows: int, lines: int, total: Address, part: Address) -> Iterator[Write]:
    """The registers of an addition that are not 0 (words of the flying int32 add [H: HAP])."""
    wide, high, deep = rows - 1, lines - 1, SUMS_IN_ATOM - 1
    yield (
        "DPU_FEATURE_MODE_CFG",
        encode("DPU_FEATURE_MODE_CFG", burst_len=BURST, output_mode=OUTPUT_TO_MEMORY, flying_mode=1),
    )
    yield (
        "DPU_DATA_FORMAT",
        encode(
            "DPU_DATA_FORMAT", in_precision=_INT32_DPU, proc_precision=_INT32_DPU, out_precision=_INT32_DPU
        ),
    )
    yield from dpu_writes(total, (wide, high, deep), 0, surface=rows * lines * ATOM_BYTES)
    yield (
        "DPU_EW_CFG",
        encode(
            "DPU_EW_CFG",
            data_mode=1,
            edata_size=3,
            alu_algorithm=2,
            relu_bypass=1,
            op_cvt_bypass=1,
            lut_bypass=1,
            op_source=1,
        ),
    )
    yield "DPU_RDMA_SRC_BASE_ADDR", total
    yield "DPU_RDMA_ERDMA_CFG", encode("DPU_RDMA_ERDMA_CFG", data_mode=1, data_size=3)
    yield "DPU_RDMA_EW_BASE_ADDR", part
    surface = rows * lines * ATOM_BYTES
    yield "DPU_RDMA_EW_SURF_STRIDE", surface
    yield (
        "DPU_RDMA_FEATURE_MODE_CFG",
        encode(
            "DPU_RDMA_FEATURE_MODE_CFG",
            in_precision=_INT32_DPU,
            proc_precision=_INT32_DPU,
            burst_len=BURST,
            flying_mode=1,
        ),
    )


def dpu_writes(to: Address, cube: tuple[int, int, int], size_e: int, *, surface: int) -> Iterator[Write]:
    """The DPU and RDMA registers that both programs have: a cube of (width, height, channels) less one each.

    `surface`: bytes from one surface of atoms to the next.
    """
    width, height, channels = cube
    yield "DPU_S_POINTER", _PING_PONG
    yield "DPU_RDMA_S_POINTER", _PING_PONG
    yield "DPU_DST_BASE_ADDR", to
    yield "DPU_DST_SURF_STRIDE", surface
    yield "DPU_DATA_CUBE_WIDTH", encode("DPU_DATA_CUBE_WIDTH", width_minus_1=width)
    yield "DPU_DATA_CUBE_HEIGHT", encode("DPU_DATA_CUBE_HEIGHT", height_minus_1=height)
    yield (
        "DPU_DATA_CUBE_CHANNEL",
        encode("DPU_DATA_CUBE_CHANNEL", channels_minus_1=channels, original_channels_minus_1=channels),
    )
    yield "DPU_BS_CFG", encode("DPU_BS_CFG", **STAGE_OFF)
    yield (
        "DPU_BS_OW_CFG",
        encode("DPU_BS_OW_CFG", size_e_0=size_e, size_e_1=size_e, size_e_2=size_e, od_bypass=1),
    )
    yield "DPU_WDMA_SIZE_0", encode("DPU_WDMA_SIZE_0", channels_minus_1=channels)
    yield "DPU_WDMA_SIZE_1", encode("DPU_WDMA_SIZE_1", height_minus_1=height, width_minus_1=width)
    yield "DPU_BN_CFG", encode("DPU_BN_CFG", **STAGE_OFF)
    yield "DPU_EW_CVT_SCALE", encode("DPU_EW_CVT_SCALE", scale=1)
    yield "DPU_OUT_CVT_SCALE", encode("DPU_OUT_CVT_SCALE", scale=1)
    yield "DPU_SURFACE_ADD", (size_e + 1) * surface
    yield "DPU_RDMA_DATA_CUBE_WIDTH", encode("DPU_RDMA_DATA_CUBE_WIDTH", width_minus_1=width)
    yield "DPU_RDMA_DATA_CUBE_HEIGHT", encode("DPU_RDMA_DATA_CUBE_HEIGHT", height_minus_1=height)
    yield "DPU_RDMA_DATA_CUBE_CHANNEL", encode("DPU_RDMA_DATA_CUBE_CHANNEL", channels_minus_1=channels)
    yield "DPU_RDMA_WEIGHT", 0x01010101


def complete(writes: Iterable[Write], blocks: tuple[str, ...]) -> list[Write]:
    """Every register of the blocks by rising offset, pointers first; 0 where `writes` has none."""
    values = dict(writes)
    mine = [r for r in REGISTERS.values() if r.block.name in blocks and r.name not in _LEFT_ALONE]
    mine.sort(key=lambda register: (not register.name.endswith("S_POINTER"), register.offset))
    return [(register.name, values.get(register.name, 0)) for register in mine]
