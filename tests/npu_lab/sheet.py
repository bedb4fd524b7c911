"""Programs made from the worked table of the reference sheet alone, for any type, shape and form of a matmul.

Register values are written out as the sheet's formulas, without the package's encoder; `test_sheet.py` checks
them against golden programs before anything else trusts them.
"""

from dataclasses import dataclass

import numpy as np

from rockledge.npu.stream import Address, Program, build

# CNA code, DPU code, bits, channels of a kernel group, inputs of a run.
TYPES = {
    "int8": (0, 0, 8, 32, 32),
    "int4": (6, 6, 4, 64, 32),
    "fp16": (2, 2, 16, 16, 32),
    "bf16": (3, 3, 16, 16, 32),
    "tf32": (7, 5, 32, 16, 16),
}
OUTPUTS = {"int8": (0, 1), "int16": (1, 2), "fp16": (2, 2), "bf16": (3, 2), "int32": (4, 4), "fp32": (5, 4)}
PAIRS = (
    ("int8", "int32"),
    ("int8", "fp32"),
    ("int4", "int16"),
    ("fp16", "fp32"),
    ("fp16", "fp16"),
    ("bf16", "fp32"),
    ("bf16", "bf16"),
    ("tf32", "fp32"),
)
FORMS = ("column", "row", "row-major")
ZEROS = (
    *(f"CNA_{name}" for name in ("FC_CON0", "FC_CON1", "FC_CON2", "PAD_CON0", "DCOMP_CTRL", "DCOMP_REGNUM")),
    *(f"CNA_DCOMP_AMOUNT{lane}" for lane in range(16)),
    "CNA_CVT_CON5",
    "CNA_PAD_CON1",
    "CORE_CLIP_TRUNCATE",
    "CORE_UNKNOWN_3030",
    *(f"DPU_{name}" for name in ("OFFSET_PEND", "BS_ALU_CFG", "BS_MUL_CFG", "BS_RELUX_CMP", "BS_OW_OP")),
    *(f"DPU_{name}" for name in ("BN_ALU_CFG", "BN_MUL_CFG", "BN_RELUX_CMP", "EW_CVT_OFFSET")),
    *(f"DPU_{name}" for name in ("EW_RELUX_CMP", "OUT_CVT_OFFSET", "OUT_CVT_SHIFT", "UNKNOWN_40C4")),
    *(f"DPU_EW_OP_VALUE_{i}" for i in range(8)),
)


@dataclass(frozen=True)
class Shape:
    """A matmul and how its program walks it. `full` rows are those of the whole matrix in row form, of
    which this program takes `m` (0: it takes all). `rdma` enables DPU_RDMA with its reads off.
    """

    kind: str
    kind_out: str
    m: int
    k: int
    n: int
    form: str = "column"
    full: int = 0
    rdma: bool = False
    spare_bank: int = 0

    @property
    def rows(self) -> int:
        """Rows of the whole matrices in memory."""
        return self.full or self.m


def banks(shape: Shape) -> int:
    """Data banks that the tile takes."""
    bits = TYPES[shape.kind][2]
    return max(1, -(-shape.m * shape.k * bits // 8 // 32768)) + shape.spare_bank


def writes(shape: Shape) -> list[tuple[str, int | Address]]:
    """The registers of section 4.2, or with the changes of 4.5 (row-major) and 4.5b (row form)."""
    m, k, n, rows = shape.m, shape.k, shape.n, shape.rows
    cna, dpu, bits, group, _ = TYPES[shape.kind]
    out, size = OUTPUTS[shape.kind_out]
    atoms = group * size // 16
    row_major, row_form = shape.form == "row-major", shape.form == "row"
    split = row_form and shape.full
    width, height = (m, 1) if row_form else (1, m)
    db = banks(shape)
    con1 = cna << 7 | cna << 4 | (1 << 29 if row_major or split else 0)
    if row_major:
        strides = (k * bits // 8 // 16, 0)
        surface, notch, add = 16, n * size // 16 - 1, atoms * 16
    elif row_form:
        strides = (rows, rows - m) if split else (0, (2**28 - 3 * m) % 2**28)
        surface, notch, add = rows * 16, 0, rows * 16 * atoms
    else:
        strides = (4, (m - 4) % 2**28)
        surface, notch, add = m * 16, 0, m * 16 * atoms
    size_e = atoms - 1
    rest = [
        ("CNA_CONV_CON1", con1),
        ("CNA_CONV_CON2", (2 if row_form else m + 1) << 4),
        ("CNA_CONV_CON3", 9),
        ("CNA_DATA_SIZE0", width << 16 | height),
        ("CNA_DATA_SIZE1", (k - 1) << 16 | k),
        ("CNA_DATA_SIZE2", width),
        ("CNA_DATA_SIZE3", m),
        ("CNA_WEIGHT_SIZE0", k * n * bits // 8),
        ("CNA_WEIGHT_SIZE1", k * bits // 8),
        ("CNA_WEIGHT_SIZE2", 0x01010000 + n),
        ("CNA_CBUF_CON0", (12 - db) << 4 | db),
        ("CNA_CBUF_CON1", -(-width * k * bits // 512)),
        ("CNA_CVT_CON0", 0xB),
        *((f"CNA_CVT_CON{i}", 0x10000) for i in (1, 2, 3, 4)),
        ("CNA_FEATURE_DATA_ADDR", Address("input")),
        ("CNA_DMA_CON0", 0x000F000F),
        ("CNA_DMA_CON1", strides[0]),
        ("CNA_DMA_CON2", strides[1]),
        ("CNA_FC_DATA_SIZE0", width << 16 | height),
        ("CNA_FC_DATA_SIZE1", k),
        ("CNA_DCOMP_ADDR0", Address("weight")),
        ("CORE_MISC_CFG", cna << 8 | (1 if shape.kind in ("fp16", "bf16", "tf32") else 0)),
        ("CORE_DATAOUT_SIZE_0", (height - 1) << 16 | (width - 1)),
        ("CORE_DATAOUT_SIZE_1", n - 1),
        ("DPU_FEATURE_MODE_CFG", 0x1E4),
        ("DPU_DATA_FORMAT", out << 29 | dpu << 26 | dpu),
        ("DPU_DST_BASE_ADDR", Address("output")),
        ("DPU_DST_SURF_STRIDE", surface),
        ("DPU_DATA_CUBE_WIDTH", width - 1),
        ("DPU_DATA_CUBE_HEIGHT", height - 1),
        ("DPU_DATA_CUBE_NOTCH", notch << 16 | notch),
        ("DPU_DATA_CUBE_CHANNEL", (n - 1) << 16 | (n - 1)),
        ("DPU_BS_CFG", 0x53),
        ("DPU_BS_OW_CFG", size_e << 8 | size_e << 5 | size_e << 2 | 2),
        ("DPU_WDMA_SIZE_0", n - 1),
        ("DPU_WDMA_SIZE_1", (height - 1) << 16 | (width - 1)),
        ("DPU_BN_CFG", 0x53),
        ("DPU_EW_CFG", 0x383),
        ("DPU_EW_CVT_SCALE", 1),
        ("DPU_OUT_CVT_SCALE", 0x10001 if shape.kind_out == "fp16" else 1),
        ("DPU_SURFACE_ADD", add),
    ]
    first = [("DPU_S_POINTER", 0xE)]
    if shape.rdma:
        first.append(("DPU_RDMA_S_POINTER", 0xE))
        rest += [
            ("DPU_RDMA_DATA_CUBE_WIDTH", width - 1),
            ("DPU_RDMA_DATA_CUBE_HEIGHT", height - 1),
            ("DPU_RDMA_DATA_CUBE_CHANNEL", n - 1),
            ("DPU_RDMA_ERDMA_CFG", 1),
            ("DPU_RDMA_FEATURE_MODE_CFG", 0x7810),
            ("DPU_RDMA_WEIGHT", 0x01010101),
        ]
    return [*first, *rest, *((name, 0) for name in ZEROS)]


def program(shape: Shape, changes: dict[str, int | Address] | None = None) -> Program:
    """The shape's program; `changes` replace register values, or add registers at the end."""
    return build(_changed(shape, changes or {}), 0x1D if shape.rdma else 0x0D)


def flying(shape: Shape, changes: dict[str, int | Address]) -> Program:
    """The DPU's part of the shape's program alone, with `changes` that say what it reads."""
    mine = [(name, value) for name, value in _changed(shape, changes) if name.startswith("DPU")]
    return build(mine, 0x18)


def _changed(shape: Shape, changes: dict[str, int | Address]) -> list[tuple[str, int | Address]]:
    left = dict(changes)
    found = [(name, left.pop(name, value)) for name, value in writes(shape)]
    return [*found, *left.items()]


def flying_add(m: int, n: int, kind: str) -> dict[str, int | Address]:
    """What a DPU-only addition changes: both operands from memory, cubes in the layout of C [H: HAP]."""
    code = {"int32": 4, "fp16": 2, "int16": 1, "int8": 0}[kind]
    size = {"int32": 4, "fp16": 2, "int16": 2, "int8": 1}[kind]
    data_size = {1: 1, 2: 2, 4: 3}[size]
    ew = 0x100003C0 if kind.startswith("int") else 0x100002C0
    return {
        "DPU_FEATURE_MODE_CFG": 0x1E5,
        "DPU_DATA_FORMAT": code << 29 | code << 26 | code,
        "DPU_EW_CFG": ew | 2 << 16 | data_size << 22,
        "DPU_OUT_CVT_SCALE": 0x10001 if kind == "fp16" else 1,
        "DPU_BS_OW_CFG": 2,
        "DPU_SURFACE_ADD": m * 16,
        "DPU_DST_SURF_STRIDE": m * 16,
        "DPU_RDMA_SRC_BASE_ADDR": Address("output"),
        "DPU_RDMA_ERDMA_CFG": 0x40000000 | data_size << 2,
        "DPU_RDMA_EW_BASE_ADDR": Address("operand"),
        "DPU_RDMA_EW_SURF_STRIDE": m * 16,
        "DPU_RDMA_FEATURE_MODE_CFG": code << 15 | 0x7800 | code << 5 | 1,
    }


def input_places(shape: Shape) -> np.ndarray:
    """Element index of A(m, k) [rows, k] in the input buffer."""
    m, k = np.arange(shape.rows)[:, None], np.arange(shape.k)[None, :]
    if shape.form == "row-major":
        return m * shape.k + k
    c2 = 128 // TYPES[shape.kind][2]
    return k // c2 * shape.rows * c2 + m * c2 + k % c2


def weight_places(shape: Shape) -> np.ndarray:
    """Element index of B(k, n) as [n, k] in the weight buffer."""
    group, run = TYPES[shape.kind][3:]
    n, k = np.arange(shape.n)[:, None], np.arange(shape.k)[None, :]
    return (n // group * (shape.k // run) + k // run) * group * run + n % group * run + k % run


def output_places(shape: Shape) -> np.ndarray:
    """Element index of C(m, n) [rows, n] in the output buffer."""
    m, n = np.arange(shape.rows)[:, None], np.arange(shape.n)[None, :]
    if shape.form == "row-major":
        return m * shape.n + n
    c2 = 16 // OUTPUTS[shape.kind_out][1]
    return n // c2 * shape.rows * c2 + m * c2 + n % c2
