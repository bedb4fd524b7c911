"""The sheet's table gives the golden programs, register for register; so it may give others."""

import json
from pathlib import Path

import pytest
from tests.npu_lab import sheet

from rockledge.npu import isa

GOLDEN = json.loads((Path(__file__).parents[1] / "npu" / "regcmd_golden.json").read_text())["cases"]
ROLES = ("input", "weight", "output")


def _registers(words) -> dict[str, int]:
    found = {}
    for word in words:
        target, value, offset = isa.split(int(word))
        register = isa.register_of(target, offset)
        if register is not None:
            found[register.name] = value
    return found


def _native(case) -> bool:
    return case["op"] == "matmul" and case["generator"] in ("mtx", "gor")


def _row_major(case) -> bool:
    """One program, and no gaps between the groups of the results (this generator leaves them in fp16)."""
    alb = case["generator"].startswith("allbilly")
    return alb and len(case["tasks"]) == 1 and case["dtype_out"] != "fp16"


@pytest.mark.parametrize("case", [case for case in GOLDEN if _native(case)], ids=lambda case: case["id"])
def test_column_form(case):
    gor = case["generator"] == "gor"
    spare = 1 if gor and case["dtype_in"] == "int8" else 0
    shape = sheet.Shape(
        case["dtype_in"], case["dtype_out"], case["M"], case["K"], case["N"], rdma=gor, spare_bank=spare
    )
    addresses = {role: int(case["addresses"][role], 16) for role in ROLES}
    ours = _registers(sheet.program(shape).at(addresses))
    theirs = _registers(int(word, 16) for word in case["tasks"][0]["words"])
    # What the table does not list is 0 there.
    assert {name: value for name, value in theirs.items() if value} == {
        name: value for name, value in ours.items() if value
    }


@pytest.mark.parametrize(
    "case",
    [case for case in GOLDEN if _row_major(case)],
    ids=lambda case: case["id"],
)
def test_row_major_form(case):
    padded = int(case["layout"]["A"].split("[")[2].split("]")[0])
    shape = sheet.Shape(case["dtype_in"], case["dtype_out"], case["M"], padded, case["N"], form="row-major")
    addresses = {role: int(case["addresses"][role], 16) for role in ROLES}
    ours = _registers(sheet.program(shape).at(addresses))
    theirs = _registers(int(word, 16) for word in case["tasks"][0]["words"])
    # Its own choices: grains, QD_EN, OD_BYPASS and the converter of fp32 results, none with a known effect,
    # and always ten data banks with two for weights where one is not enough.
    free = ("CNA_CONV_CON2", "CORE_MISC_CFG", "DPU_BS_OW_CFG", "DPU_OUT_CVT_SCALE", "CNA_CBUF_CON0")
    differ = {name for name in theirs if theirs[name] != ours.get(name, 0)}
    assert differ <= set(free)
    assert theirs["CNA_CBUF_CON0"] & 15 >= sheet.banks(shape)
