"""Cases of the golden families in other shapes: element-wise, tables, depthwise, gaps, chains of rows."""

import pytest
from tests.npu_lab import sheet, sheet_depthwise, sheet_lut

from rockledge.npu.stream import Address, chain
from rockledge_npu_lab.verify import golden

ADDRESSES = {"input": 0x10, "weight": 0x40000000, "output": 0xE0000000, "operand": 0x9000_0000}
ROLES = {"bias": "operand", "ew_operand": "operand", "input": "input", "output": "output", "weight": "weight"}


def check(case: dict, tasks: list[dict]) -> None:
    """Runs a case with addresses for every role; it must pass."""
    addresses = {role: hex(ADDRESSES[place]) for role, place in ROLES.items()}
    outcome = golden.verify({"id": "ours", "addresses": addresses, "tasks": tasks, **case}, seed=3)
    assert outcome.passed, outcome


def task(words: list[int], **rest: str) -> dict:
    return {"regcfg_amount": len(words) - 4, "words": [f"{word:016x}" for word in words], **rest}


def matmul(shape: sheet.Shape, **layout: str) -> dict:
    """What a case says of a product in the layouts of fp16 or int8."""
    group, run = sheet.TYPES[shape.kind][3:]
    return {
        "op": "matmul",
        "dtype_in": shape.kind,
        "dtype_out": shape.kind_out,
        "M": shape.m,
        "K": shape.k,
        "N": shape.n,
        "layout": {"B": f"[N/{group}][K/{run}][{group}][{run}]", **layout},
    }


@pytest.mark.parametrize(("operation", "ew_cfg"), [("add", 0x108202C0), ("mul", 0x108003C4)])
@pytest.mark.parametrize(("m", "k", "n"), [(12, 64, 48), (50, 96, 208), (100, 32, 16)])
def test_a_second_operand_beside_a_product(operation, ew_cfg, m, k, n):
    shape = sheet.Shape("fp16", "fp16", m, k, n, rdma=True)
    changes = {
        "DPU_EW_CFG": ew_cfg,
        "DPU_RDMA_SRC_BASE_ADDR": Address("operand"),
        "DPU_RDMA_EW_BASE_ADDR": Address("operand", 16 * m),
        "DPU_RDMA_ERDMA_CFG": 0x40000008,
        "DPU_RDMA_EW_SURF_STRIDE": 16 * m,
        "DPU_RDMA_SURF_NOTCH": 16 * m,
        "DPU_RDMA_EW_SURF_NOTCH": 16 * m,
        "DPU_RDMA_FEATURE_MODE_CFG": 0x17D40,
    }
    words = sheet.program(shape, changes).at(ADDRESSES).tolist()
    case = {**matmul(shape, A="[K/8][M][8]", C="[N/8][M][8]"), "op": f"matmul+ew{operation}"}
    check(case, [task(words)])


@pytest.mark.parametrize("elements", [8, 512, 8192, 32768])
def test_the_sigmoid(elements):
    words = sheet_lut.program(sheet_lut.sigmoid_tables(), elements // 8).at(ADDRESSES).tolist()
    check({"op": "dpu_lut_sigmoid", "elements": elements}, [task(words)])


@pytest.mark.parametrize(("channels", "height", "width"), [(32, 3, 5), (160, 8, 16), (64, 1, 1)])
def test_depthwise(channels, height, width):
    program = sheet_depthwise.program(channels, height, width, 0x418A, 22, -8, 0)
    case = {
        "op": "depthwise 1x1 conv",
        "channels": channels,
        "height": height,
        "width": width,
        "dtype_in": "int8",
        "layout": {"input": "[C/16][H*W][16] int8", "output": "[C/16][H*W][16] int8"},
    }
    check(case, [task(program.at(ADDRESSES).tolist())])


@pytest.mark.parametrize(("m", "k", "n"), [(77, 224, 208), (1, 32, 16), (60, 96, 48)])
def test_row_major_results_with_gaps(m, k, n):
    shape = sheet.Shape("fp16", "fp16", m, k, n, "row-major")
    changes = {"DPU_DATA_CUBE_NOTCH": (n // 4 - 1) * 0x10001, "DPU_SURFACE_ADD": 0x40}
    words = sheet.program(shape, changes).at(ADDRESSES).tolist()
    gaps = f"row pitch {2 * n} elements; channel c at (c/16)*32 + c%16"
    check(matmul(shape, A=f"row-major [M][{k}]", C=gaps), [task(words)])


def test_a_chain_of_rows():
    m, k, n = 5, 352, 96
    rows = [
        sheet.program(
            sheet.Shape("int8", "int32", 1, k, n, "row-major"),
            {
                "CNA_FEATURE_DATA_ADDR": Address("input", row * k),
                "DPU_DST_BASE_ADDR": Address("output", row * n * 4),
                "DPU_DATA_CUBE_NOTCH": 0x670067,
            },
        )
        for row in range(m)
    ]
    kick, base = chain(rows), 0x123450
    words = kick.at({**ADDRESSES, "program": base}).tolist()
    tasks = [
        task(words[start : start + body + 4], regcmd_addr=hex(base + 8 * start))
        for start, body in zip(kick.starts, kick.body_words, strict=True)
    ]
    shape = sheet.Shape("int8", "int32", m, k, n, "row-major")
    check(matmul(shape, A=f"row-major [M][{k}]", C=f"row-major [M][{n}]"), tasks)
