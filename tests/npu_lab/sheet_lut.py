"""The look-up pass of the reference sheet (6.4) with the tables of the sigmoid, as a program."""

import numpy as np

from rockledge.npu.stream import Address, Program, build

STEP = 32
MUL = 2596.0  # index units of x, exactly fp16


def sigmoid_tables() -> np.ndarray:
    """[2, 513]: round(sigmoid * 32768) at most 32767, as the golden file notes them."""
    x = np.stack([np.arange(513) - 512, np.arange(513)]) * STEP / MUL
    return np.minimum(np.rint(32768 / (1 + np.exp(-x))), 32767).astype(np.int64)


def program(tables: np.ndarray, pixels: int, changes: dict[str, int | Address] | None = None) -> Program:
    """The LUT pass of the sheet (6.4) over `pixels` x 8 fp16 elements."""
    writes: list[tuple[str, int | Address]] = [("DPU_S_POINTER", 0xE), ("DPU_RDMA_S_POINTER", 0xE)]
    for table, entries in enumerate(tables):
        writes.append(("DPU_LUT_ACCESS_CFG", 0x20000 | table << 16))
        writes += [("DPU_LUT_ACCESS_DATA", int(entry) & 0xFFFF) for entry in entries]
    values: dict[str, int | Address] = {
        "DPU_FEATURE_MODE_CFG": 0x1E5,
        "DPU_DATA_FORMAT": 0x48000002,
        "DPU_DST_BASE_ADDR": Address("output"),
        "DPU_DST_SURF_STRIDE": pixels * 16,
        "DPU_DATA_CUBE_WIDTH": pixels - 1,
        "DPU_DATA_CUBE_CHANNEL": 7 << 16 | 7,
        "DPU_BS_CFG": 0x53,
        "DPU_BS_OW_CFG": 2,
        "DPU_WDMA_SIZE_0": 7,
        "DPU_WDMA_SIZE_1": pixels - 1,
        "DPU_BN_CFG": 0x20040,
        "DPU_BN_ALU_CFG": 0x80000000,
        "DPU_BN_MUL_CFG": 0x69120000,
        "DPU_EW_CFG": 0x300,
        "DPU_OUT_CVT_OFFSET": 1,
        "DPU_OUT_CVT_SCALE": 0x10001,
        "DPU_OUT_CVT_SHIFT": 0x8000F000,
        "DPU_SURFACE_ADD": pixels * 16,
        "DPU_LUT_CFG": 0x68,
        "DPU_LUT_INFO": 0x50500,
        "DPU_LUT_LE_START": 0xFFFFC000,
        "DPU_LUT_LO_END": 0x4000,
        "DPU_LUT_LE_SLOPE_SCALE": 23107,
        "DPU_LUT_LE_SLOPE_SHIFT": 22,
        "DPU_RDMA_DATA_CUBE_WIDTH": pixels - 1,
        "DPU_RDMA_DATA_CUBE_CHANNEL": 7,
        "DPU_RDMA_SRC_BASE_ADDR": Address("input"),
        "DPU_RDMA_ERDMA_CFG": 1,
        "DPU_RDMA_FEATURE_MODE_CFG": 0x17849,
        **(changes or {}),
    }
    return build([*writes, *values.items()], 0x18)
