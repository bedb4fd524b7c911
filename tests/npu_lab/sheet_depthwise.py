"""The depthwise 1 x 1 convolution of the reference sheet (4.6), as a program."""

from rockledge.npu.stream import Address, Program, build


def program(
    channels: int, height: int, width: int, scale: int, shift: int, offset: int, weight_offset: int
) -> Program:
    """Section 4.6 of the sheet: bias through BRDMA, one byte of weight a channel, one offset for all."""
    cube = (height - 1) << 16 | (width - 1)
    pixels = height * width
    banks = -(-pixels * channels // 32768) + 1
    writes: list[tuple[str, int | Address]] = [
        ("DPU_S_POINTER", 0xE),
        ("DPU_RDMA_S_POINTER", 0xE),
        ("CNA_CONV_CON1", 3),
        ("CNA_CONV_CON2", 52 << 4),
        ("CNA_CONV_CON3", 9),
        ("CNA_DATA_SIZE0", width << 16 | height),
        ("CNA_DATA_SIZE1", (channels - 1) << 16 | channels),
        ("CNA_DATA_SIZE2", width),
        ("CNA_DATA_SIZE3", pixels),
        ("CNA_WEIGHT_SIZE0", -(-channels // 64) * 64),
        ("CNA_WEIGHT_SIZE1", channels),
        ("CNA_WEIGHT_SIZE2", 0x01010001),
        ("CNA_CBUF_CON0", (12 - banks) << 4 | banks),
        ("CNA_CBUF_CON1", -(-width * channels // 64)),
        ("CNA_CVT_CON0", 0xB),
        ("CNA_FEATURE_DATA_ADDR", Address("input")),
        ("CNA_DMA_CON0", 0x000F000F),
        ("CNA_DMA_CON1", 4 * width),
        ("CNA_DMA_CON2", (pixels - 4 * width) % 2**28),
        ("CNA_DCOMP_ADDR0", Address("weight")),
        ("CORE_MISC_CFG", 3),
        ("CORE_DATAOUT_SIZE_0", cube),
        ("CORE_DATAOUT_SIZE_1", channels - 1),
        ("DPU_FEATURE_MODE_CFG", 0x1FC),
        ("DPU_DATA_FORMAT", 0),
        ("DPU_DST_BASE_ADDR", Address("output")),
        ("DPU_DST_SURF_STRIDE", pixels * 16),
        ("DPU_DATA_CUBE_WIDTH", width - 1),
        ("DPU_DATA_CUBE_HEIGHT", height - 1),
        ("DPU_DATA_CUBE_CHANNEL", (channels - 1) << 16 | (channels - 1)),
        ("DPU_BS_CFG", 0x20150),
        ("DPU_BS_OW_CFG", 0x36C | (1 if weight_offset else 0)),
        ("DPU_BS_OW_OP", weight_offset % 2**16),
        ("DPU_WDMA_SIZE_0", channels - 1),
        ("DPU_WDMA_SIZE_1", cube),
        ("DPU_BN_CFG", 0x53),
        ("DPU_EW_CFG", 0x383),
        ("DPU_OUT_CVT_OFFSET", offset % 2**32),
        ("DPU_OUT_CVT_SCALE", scale % 2**16),
        ("DPU_OUT_CVT_SHIFT", shift),
        ("DPU_SURFACE_ADD", pixels * 64),
        ("DPU_RDMA_DATA_CUBE_WIDTH", width - 1),
        ("DPU_RDMA_DATA_CUBE_HEIGHT", height - 1),
        ("DPU_RDMA_DATA_CUBE_CHANNEL", channels - 1),
        ("DPU_RDMA_BRDMA_CFG", 2),
        ("DPU_RDMA_BS_BASE_ADDR", Address("operand")),
        ("DPU_RDMA_ERDMA_CFG", 1),
        ("DPU_RDMA_FEATURE_MODE_CFG", 0x7816),
    ]
    return build(writes, 0x1D)
