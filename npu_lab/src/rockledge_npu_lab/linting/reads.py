"""Which registers the result of a program depends on, so that a value that was not written can be noticed.

Registers keep their values from program to program and from job to job. The tables hold what execution of the
golden programs showed [E]: the rest of a block's registers is switched off by a bypass bit, or never read.
"""

from collections.abc import Iterator
from typing import Final

from rockledge.npu.isa import decode
from rockledge_npu_lab.linting.state import State


def _names(block: str, text: str) -> tuple[str, ...]:
    return tuple(f"{block}_{name}" for name in text.split())


ALWAYS_READ: Final = {
    "CNA": _names(
        "CNA",
        """
        CONV_CON1 CONV_CON2 CONV_CON3 DATA_SIZE0 DATA_SIZE1 DATA_SIZE2 DATA_SIZE3 WEIGHT_SIZE0 WEIGHT_SIZE1
        WEIGHT_SIZE2 CBUF_CON0 CBUF_CON1 CVT_CON0 PAD_CON0 FEATURE_DATA_ADDR DMA_CON0 DMA_CON1 DMA_CON2
        FC_DATA_SIZE0 FC_DATA_SIZE1 DCOMP_CTRL DCOMP_ADDR0
        """,
    ),
    "CORE": _names("CORE", "MISC_CFG DATAOUT_SIZE_0 DATAOUT_SIZE_1 CLIP_TRUNCATE"),
    "DPU": _names(
        "DPU",
        """
        S_POINTER FEATURE_MODE_CFG DATA_FORMAT DST_BASE_ADDR DST_SURF_STRIDE DATA_CUBE_WIDTH DATA_CUBE_HEIGHT
        DATA_CUBE_NOTCH DATA_CUBE_CHANNEL BS_CFG BS_OW_CFG WDMA_SIZE_0 WDMA_SIZE_1 BN_CFG EW_CFG
        OUT_CVT_OFFSET OUT_CVT_SCALE OUT_CVT_SHIFT SURFACE_ADD
        """,
    ),
    "DPU_RDMA": _names(
        "DPU_RDMA",
        "S_POINTER DATA_CUBE_WIDTH DATA_CUBE_HEIGHT DATA_CUBE_CHANNEL ERDMA_CFG FEATURE_MODE_CFG",
    ),
}
LUT_READ: Final = _names(
    "DPU_LUT", "CFG INFO LE_START LO_END LE_SLOPE_SCALE LE_SLOPE_SHIFT LO_SLOPE_SCALE LO_SLOPE_SHIFT"
)
_OPERAND_READ: Final = {"BS": "DPU_RDMA_BRDMA_CFG", "BN": "DPU_RDMA_NRDMA_CFG"}


def needs(state: State) -> Iterator[str]:
    """The registers whose values a program depends on, whoever wrote them [E]: what execution showed."""
    for block, names in ALWAYS_READ.items():
        if block in state.enabled:
            yield from names
    if state.conv and not state.field("CNA_CVT_CON0", "bypass"):
        yield from (f"CNA_CVT_CON{i}" for i in (1, 2, 3, 4))
    for stage in ("BS", "BN"):
        cfg = decode(f"DPU_{stage}_CFG", state.values.get(f"DPU_{stage}_CFG", 0))
        if "DPU" not in state.enabled or cfg["bypass"]:
            continue
        if not cfg["alu_bypass"] and not cfg["alu_source"]:
            yield f"DPU_{stage}_ALU_CFG"
        if not cfg["mul_bypass"]:
            yield f"DPU_{stage}_MUL_CFG"
        if cfg["alu_source"]:
            yield _OPERAND_READ[stage]
            yield f"DPU_RDMA_{stage}_BASE_ADDR"
    if "DPU" in state.enabled and state.lut:
        yield from LUT_READ
    if "DPU_RDMA" in state.enabled:
        if not state.field("DPU_RDMA_FEATURE_MODE_CFG", "mrdma_disable"):
            yield "DPU_RDMA_SRC_BASE_ADDR"
        if not state.field("DPU_RDMA_ERDMA_CFG", "disable"):
            yield from ("DPU_RDMA_EW_BASE_ADDR", "DPU_RDMA_EW_SURF_STRIDE")
