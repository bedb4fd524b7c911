"""One fp16 product as a program, alone or combined with a second tensor before its one rounding to fp16.

C[rows, columns] = A[rows, inputs] x B[columns, inputs] transposed (+ a number), then add, max, min or
multiply with D[rows, columns]; all native layouts. The words are those of GRU's fp16 products with an
elementwise operand, register for register [H].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rockledge.errors import NpuError
from rockledge.npu.isa import CNA_PRECISION, ENABLE_CONV_RDMA, OUTPUT_TO_MEMORY, encode
from rockledge.npu.layout import ATOM_BYTES, NATIVE
from rockledge.npu.programs.elementwise import (
    FP16,
    HALF_BYTES,
    PIPELINE,
    TO_FP16,
    Combine,
    ExponentBits,
    FirstStage,
    elementwise_fields,
    exponent_writes,
    first_stage_writes,
)
from rockledge.npu.programs.tile_program import (
    BANK_BYTES,
    BANKS,
    BURST,
    CVT_UNITY,
    EW_OFF,
    LARGEST_ROWS,
    STRIDE_WRAP,
    Write,
    complete,
    dpu_writes,
)
from rockledge.npu.stream import Address, Program, build

_HALF: Final = NATIVE["fp16"]
LEAST_ROWS: Final = 12  # below, the strides of a second operand that are known to run are not ours [H: GRU]
LARGEST_COLUMNS: Final = 4096  # int8 after an fp16 program of 8,192 columns timed out; HAP stays at 4,096 [H]
LARGEST_INPUTS: Final = 16384  # 14 bits of real channels less one
_CNA_HALF: Final = {precision.name: code for code, precision in CNA_PRECISION.items()}["fp16"]
_ATOMS: Final = _HALF.group * HALF_BYTES // ATOM_BYTES  # of one pixel and kernel group, SIZE_E + 1
_FUSED: Final = 5  # COMB_USE: MRDMA fetches the operand's even surfaces, ERDMA the odd ones [H], [E]


def float_banks(rows: int, inputs: int) -> tuple[int, int]:
    """(data, weight) banks of a product: the least for its rows, the rest for weights.

    Raises NpuError where fewer are left than two groups of kernels take, which HAP keeps room for [H].
    """
    data = max(1, -(-rows * inputs * HALF_BYTES // BANK_BYTES))
    needed = max(2, -(-inputs * HALF_BYTES * _HALF.group * 2 // BANK_BYTES))
    if data + needed > BANKS:
        raise NpuError(
            f"an fp16 product of {rows} rows and {inputs} inputs needs {data} data and {needed} weight "
            "banks, "
            f"expected at most {BANKS} of {BANK_BYTES} bytes together; use fewer rows"
        )
    return data, BANKS - data


def float_product_program(
    rows: int,
    inputs: int,
    columns: int,
    a: Address,
    b: Address,
    c: Address,
    *,
    first: FirstStage | None = None,
    fused: tuple[Combine, Address] | None = None,
    bits: ExponentBits | None = None,
) -> Program:
    """The program; `first` acts on the fp32 sums, `fused` combines them with a tensor in C's layout.

    With `bits`, which takes the place of `first`, what is combined and stored are the bits of an exponential.

    Sums are exact in groups of 32 inputs, rounded to fp32 and added in order [H: GRN2]. Raises NpuError
    naming the limit: rows a multiple of 4 from 12 to 1,020, inputs a multiple of 32 up to 16,384, columns a
    multiple of 16 up to 4,096, and what the convolution buffer holds (`float_banks`).
    """
    _check(rows, inputs, columns)
    data, weight = float_banks(rows, inputs)
    writes = [
        *_product_writes(rows, inputs, columns, (data, weight)),
        ("CNA_FEATURE_DATA_ADDR", a),
        ("CNA_DCOMP_ADDR0", b),
        *dpu_writes(c, (0, rows - 1, columns - 1), _ATOMS - 1, surface=rows * ATOM_BYTES),
        ("DPU_OUT_CVT_SCALE", TO_FP16),
        *first_stage_writes(first),
        *_operand_writes(rows, fused),
        *(() if bits is None else exponent_writes(bits)),
    ]
    return build(complete(writes, ("CNA", "CORE", "DPU", "DPU_RDMA")), ENABLE_CONV_RDMA)


def _operand_writes(rows: int, fused: tuple[Combine, Address] | None) -> Iterator[Write]:
    if fused is None:
        yield "DPU_EW_CFG", encode("DPU_EW_CFG", **EW_OFF)
        yield "DPU_RDMA_ERDMA_CFG", encode("DPU_RDMA_ERDMA_CFG", disable=1)
        yield (
            "DPU_RDMA_FEATURE_MODE_CFG",
            encode("DPU_RDMA_FEATURE_MODE_CFG", burst_len=BURST, mrdma_disable=1),
        )
        return
    combine, operand = fused
    surface = rows * ATOM_BYTES
    yield "DPU_EW_CFG", encode("DPU_EW_CFG", **elementwise_fields(combine))
    yield "DPU_RDMA_SRC_BASE_ADDR", operand
    yield "DPU_RDMA_ERDMA_CFG", encode("DPU_RDMA_ERDMA_CFG", data_mode=1, data_size=2)
    yield "DPU_RDMA_EW_BASE_ADDR", Address(operand.role, operand.offset + surface)
    # All three alike: every reading of the pitch then is two surfaces.
    for name in ("DPU_RDMA_EW_SURF_STRIDE", "DPU_RDMA_SURF_NOTCH", "DPU_RDMA_EW_SURF_NOTCH"):
        yield name, surface
    yield (
        "DPU_RDMA_FEATURE_MODE_CFG",
        encode(
            "DPU_RDMA_FEATURE_MODE_CFG",
            in_precision=FP16,
            proc_precision=FP16,
            burst_len=BURST,
            comb_use=_FUSED,
        ),
    )


def _product_writes(rows: int, inputs: int, columns: int, banks: tuple[int, int]) -> Iterator[Write]:
    """CNA and CORE of the column form, width 1 and height `rows`, and the DPU's types."""
    yield "CNA_CONV_CON1", encode("CNA_CONV_CON1", in_precision=_CNA_HALF, proc_precision=_CNA_HALF)
    yield "CNA_CONV_CON2", encode("CNA_CONV_CON2", feature_grains=rows + 1)
    yield "CNA_CONV_CON3", encode("CNA_CONV_CON3", stride_x=1, stride_y=1)
    yield "CNA_DATA_SIZE0", encode("CNA_DATA_SIZE0", width=1, height=rows)
    yield "CNA_DATA_SIZE1", encode("CNA_DATA_SIZE1", channels=inputs, real_channels_minus_1=inputs - 1)
    yield "CNA_DATA_SIZE2", encode("CNA_DATA_SIZE2", output_width=1)
    yield "CNA_DATA_SIZE3", encode("CNA_DATA_SIZE3", output_pixels=rows)
    yield "CNA_WEIGHT_SIZE0", encode("CNA_WEIGHT_SIZE0", bytes=inputs * columns * HALF_BYTES)
    yield "CNA_WEIGHT_SIZE1", encode("CNA_WEIGHT_SIZE1", bytes_per_kernel=inputs * HALF_BYTES)
    yield "CNA_WEIGHT_SIZE2", encode("CNA_WEIGHT_SIZE2", kernel_width=1, kernel_height=1, kernels=columns)
    yield "CNA_CBUF_CON0", encode("CNA_CBUF_CON0", data_bank=banks[0], weight_bank=banks[1])
    yield "CNA_CBUF_CON1", encode("CNA_CBUF_CON1", data_entries=-(-inputs * HALF_BYTES // 64))
    yield "CNA_CVT_CON0", encode("CNA_CVT_CON0", bypass=1, cvt_type=1, data_sign=1)
    yield from CVT_UNITY.items()
    yield "CNA_DMA_CON0", encode("CNA_DMA_CON0", weight_burst=BURST, data_burst=BURST)
    yield "CNA_DMA_CON1", encode("CNA_DMA_CON1", line_stride=4)
    yield "CNA_DMA_CON2", encode("CNA_DMA_CON2", surface_stride=(rows - 4) % STRIDE_WRAP)
    yield "CNA_FC_DATA_SIZE0", encode("CNA_FC_DATA_SIZE0", width=1, height=rows)
    yield "CNA_FC_DATA_SIZE1", encode("CNA_FC_DATA_SIZE1", channels=inputs)
    yield "CORE_MISC_CFG", encode("CORE_MISC_CFG", proc_precision=_CNA_HALF, qd_en=1)
    yield "CORE_DATAOUT_SIZE_0", encode("CORE_DATAOUT_SIZE_0", height_minus_1=rows - 1)
    yield "CORE_DATAOUT_SIZE_1", encode("CORE_DATAOUT_SIZE_1", channels_minus_1=columns - 1)
    yield (
        "DPU_FEATURE_MODE_CFG",
        encode("DPU_FEATURE_MODE_CFG", burst_len=BURST, output_mode=OUTPUT_TO_MEMORY),
    )
    yield "DPU_DATA_FORMAT", PIPELINE


def _check(rows: int, inputs: int, columns: int) -> None:
    if not LEAST_ROWS <= rows <= LARGEST_ROWS or rows % 4:
        raise NpuError(
            f"an fp16 product has {rows} rows, expected a multiple of 4 from {LEAST_ROWS} to {LARGEST_ROWS}; "
            "pad or split the rows"
        )
    if inputs < 1 or inputs % _HALF.run or inputs > LARGEST_INPUTS:
        raise NpuError(
            f"an fp16 product has {inputs} inputs, expected a multiple of {_HALF.run} up to "
            f"{LARGEST_INPUTS}; "
            "pad with zeros"
        )
    if columns < 1 or columns % _HALF.group or columns > LARGEST_COLUMNS:
        raise NpuError(
            f"an fp16 product has {columns} columns, expected a multiple of {_HALF.group} up to "
            f"{LARGEST_COLUMNS}; pad or split the columns"
        )
