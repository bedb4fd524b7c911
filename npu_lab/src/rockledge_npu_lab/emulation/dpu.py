"""The DPU: from accumulators, or from memory when flying, through its stages to memory.

Order: BS, BN, EW (or a table), output conversion, write-back. The pipeline is integer (int64 here, each
stage's result within int32) or fp32, by DATA_FORMAT's processing precision [E].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rockledge.npu import isa
from rockledge_npu_lab.emulation import elementwise, operands, output, stages
from rockledge_npu_lab.emulation.conv_setup import Convolution
from rockledge_npu_lab.emulation.convolution import Accumulators
from rockledge_npu_lab.emulation.lut import Tables
from rockledge_npu_lab.emulation.memory import Memory
from rockledge_npu_lab.emulation.output import Destination
from rockledge_npu_lab.emulation.register_file import Snapshot

_FLOAT_CODES: Final = (2, 3, 5)
# More results than any output of a real program; ends streams that ask for the impossible.
MAX_RESULTS: Final = 1 << 26
# The tables corrupt the tail of passes near the fields' limit; safe up to here [H].
_LUT_PIXELS: Final = 4096
_ZERO_REGISTERS: Final = ("DPU_OFFSET_PEND",)
_ZERO_FIELDS: Final = {
    "DPU_FEATURE_MODE_CFG": ("comb_use", "tp_en", "rgp_type", "nonalign", "surf_len"),
    "DPU_DATA_FORMAT": ("mc_surf_out", "ew_truncate_negative"),
    "DPU_DATA_CUBE_HEIGHT": ("minmax_ctl",),
    "DPU_BS_OW_CFG": ("rgp_cnter", "tp_org_en"),
    "DPU_WDMA_SIZE_0": ("tp_precision", "size_c"),
}


@dataclass(frozen=True)
class Pipeline:
    """The settings of the DPU: sizes in elements, and where the output goes."""

    floating: bool
    pixels: int
    channels: int
    bs: stages.Operands | None
    bn: stages.Operands | None
    destination: Destination

    @property
    def needs_input_sums(self) -> bool:
        """Whether BS adds the inputs' sums (weights with a zero point)."""
        return self.bs is not None and not self.floating and bool(np.any(self.bs.input_factor))


def read_pipeline(registers: Snapshot, memory: Memory, product: Convolution | None) -> Pipeline:
    """The DPU's program, checked; `product` is what feeds it, None when it is flying.

    Raises StreamError for what the hardware would not do, or is not known.
    """
    mode = registers.fields("DPU_FEATURE_MODE_CFG")
    flying = product is None
    if mode["flying_mode"] != flying:
        text = f"flying_mode is {mode['flying_mode']}, but CNA and CORE are {'off' if flying else 'on'}"
        raise registers.refuse("bitmap", "DPU_FEATURE_MODE_CFG", text)
    if mode["output_mode"] != isa.OUTPUT_TO_MEMORY:
        raise registers.refuse("stage", "DPU_FEATURE_MODE_CFG", "expected output to memory (output_mode 2)")
    if mode["conv_mode"] != (3 if product is not None and product.depthwise else 0):
        raise registers.refuse("shape", "DPU_FEATURE_MODE_CFG", "conv_mode is not that of CNA")
    _unknown_modes(registers)
    width, height, channels = _size(registers, product)
    pixels = width * height
    if pixels * channels > MAX_RESULTS:
        raise registers.refuse(
            "too-long",
            "DPU_DATA_CUBE_CHANNEL",
            f"{pixels * channels} results, expected at most {MAX_RESULTS}",
        )
    data = registers.fields("DPU_DATA_FORMAT")
    floating = data["proc_precision"] in _FLOAT_CODES
    if data["in_precision"] != data["proc_precision"]:
        raise registers.refuse(
            "type", "DPU_DATA_FORMAT", "in and processing precision differ, expected the input's type twice"
        )
    if product is not None:
        code = isa.PRECISIONS["fp32"].dpu if product.kind.dpu is None else product.kind.dpu
        if data["in_precision"] != code:
            raise registers.refuse(
                "type",
                "DPU_DATA_FORMAT",
                f"type {data['in_precision']} after a product of {product.kind.name}, expected {code}",
            )
    if isa.BLOCK_BY_NAME["DPU_RDMA"].runs(registers.enable):
        operands.check_feeding(registers, flying)
    elementwise.check(registers, floating, flying)
    if elementwise.is_lut(registers) and pixels > _LUT_PIXELS:
        registers.flag(
            "field-limit", "DPU_DATA_CUBE_WIDTH", f"{pixels} pixels through a table, safe up to {_LUT_PIXELS}"
        )
    return Pipeline(
        floating=floating,
        pixels=pixels,
        channels=channels,
        bs=stages.read_operands(registers, memory, "BS", channels, floating),
        bn=stages.read_operands(registers, memory, "BN", channels, floating),
        destination=output.read_destination(registers, memory, pixels, channels, floating),
    )


def run(
    pipeline: Pipeline, product: Accumulators | None, registers: Snapshot, memory: Memory, tables: Tables
) -> NDArray[Any]:
    """The converted results [pixels, channels], not yet stored."""
    sums = None
    if product is None:
        values = operands.main_input(registers, memory, pipeline.pixels, pipeline.channels)
        int4 = False
    else:
        values = product.values
        int4 = registers.field("DPU_DATA_FORMAT", "in_precision") == isa.PRECISIONS["int4"].dpu
        sums = product.input_sums if pipeline.needs_input_sums else None
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if pipeline.floating:
            return _run_float(pipeline, values, registers, memory, tables)
        return _run_integer(pipeline, values, sums, int4, registers, memory)


def _run_integer(
    pipeline: Pipeline,
    values: NDArray[Any],
    sums: NDArray[np.int64] | None,
    int4: bool,
    registers: Snapshot,
    memory: Memory,
) -> NDArray[Any]:
    active = elementwise.is_active(registers)
    if pipeline.bs is not None or pipeline.bn is not None or active:
        values = values.astype(np.int64)
    if pipeline.bs is not None:
        values = stages.apply_integer(values, pipeline.bs, sums, registers)
    if pipeline.bn is not None:
        values = stages.apply_integer(values, pipeline.bn, None, registers)
    if active:
        values = elementwise.combine_integer(values, registers, memory)
    return output.convert_integer(values, pipeline.destination.kind, registers, int4)


def _run_float(
    pipeline: Pipeline, values: NDArray[Any], registers: Snapshot, memory: Memory, tables: Tables
) -> NDArray[Any]:
    if pipeline.bs is not None:
        values = stages.apply_float(values, pipeline.bs, registers)
    negative = values < 0
    if pipeline.bn is not None:
        if pipeline.bn.multiplier is not None:
            negative = values * np.asarray(pipeline.bn.multiplier, np.float32) < 0
        values = stages.apply_float(values, pipeline.bn, registers)
    if elementwise.is_lut(registers):
        values = elementwise.tabulate(values, negative, tables, registers)
    elif elementwise.is_active(registers):
        values = elementwise.combine_float(values, registers, memory)
    return output.convert_float(values, pipeline.destination.kind, registers)


def _size(registers: Snapshot, product: Convolution | None) -> tuple[int, int, int]:
    """Width, height and channels, which cube, write DMA and the product must agree on."""
    width = registers.field("DPU_DATA_CUBE_WIDTH", "width_minus_1") + 1
    height = registers.field("DPU_DATA_CUBE_HEIGHT", "height_minus_1") + 1
    cube = registers.fields("DPU_DATA_CUBE_CHANNEL")
    channels = cube["channels_minus_1"] + 1
    wdma = registers.fields("DPU_WDMA_SIZE_1")
    sizes = [
        ("DPU_DATA_CUBE_CHANNEL", cube["original_channels_minus_1"] + 1, channels),
        ("DPU_WDMA_SIZE_0", registers.field("DPU_WDMA_SIZE_0", "channels_minus_1") + 1, channels),
        ("DPU_WDMA_SIZE_1", (wdma["width_minus_1"] + 1, wdma["height_minus_1"] + 1), (width, height)),
    ]
    if product is not None:
        outputs = product.channels if product.depthwise else product.kernels
        sizes += [
            ("DPU_DATA_CUBE_WIDTH", width, product.width),
            ("DPU_DATA_CUBE_HEIGHT", height, product.height),
            ("DPU_DATA_CUBE_CHANNEL", channels, outputs),
        ]
    for name, found, expected in sizes:
        if found != expected:
            raise registers.refuse(
                "shape", name, f"it is {found}, expected {expected} as in the other blocks"
            )
    return width, height, channels


def _unknown_modes(registers: Snapshot) -> None:
    for name in _ZERO_REGISTERS:
        if registers.value(name):
            raise registers.refuse("stage", name, f"it is {registers.value(name):#x}, expected 0")
    for name, fields in _ZERO_FIELDS.items():
        found = registers.fields(name)
        for field in fields:
            if found[field]:
                raise registers.refuse("stage", name, f"{field} is {found[field]}, expected 0")
