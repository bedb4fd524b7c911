"""Our fp16 products and look-up passes beside those of GRU, which ran on both drivers; and their limits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rockledge.errors import NpuError
from rockledge.npu.isa import register_of, split
from rockledge.npu.lut import sigmoid_table
from rockledge.npu.programs.elementwise import Combine, pair_program, table_program
from rockledge.npu.programs.float_product import float_product_program
from rockledge.npu.stream import Address, parse

GOLDEN = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "regcmd_golden.json").read_text())["cases"]
}
ADDRESSES = {"input": 0x0100_0000, "weight": 0x0200_0000, "output": 0x0300_0000, "operand": 0x0400_0000}
A, B, C, D = (Address(role) for role in ADDRESSES)


def registers(words):
    """Every register of a program and its last value that is not 0; the enable word."""
    (program,) = parse(words)
    found = {"enable": program.trailer.enable}
    for command in program.body:
        target, value, offset = split(command)
        register = register_of(target, offset)
        if value:
            found[register.name] = value
    return found


def golden(name):
    return registers([int(word, 16) for word in GOLDEN[name]["tasks"][0]["words"]])


@pytest.mark.parametrize(
    ("name", "combine"),
    [(name, Combine.ADD if "ewadd" in name else Combine.MULTIPLY) for name in GOLDEN if "_ew" in name],
)
def test_a_product_with_an_operand_has_the_words_of_gru(name, combine):
    case = GOLDEN[name]
    program = float_product_program(case["M"], case["K"], case["N"], A, B, C, fused=(combine, D))
    assert registers(program.at(ADDRESSES).tolist()) == golden(name)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("gor_lut_sigmoid")])
def test_a_look_up_pass_has_the_registers_of_gru(name):
    theirs = golden(name)
    elements = GOLDEN[name].get("elements") or int(name.rsplit("n", 1)[1])
    table = sigmoid_table(-3.0, 3.0)
    ours = registers(table_program(replace(table, offset=1), elements, A, C).at(ADDRESSES).tolist())
    # The index's scale and the entries are the table's own; ours never extrapolates, so it needs no slope.
    own = {"DPU_BN_MUL_CFG", "DPU_LUT_LE_SLOPE_SCALE", "DPU_LUT_LE_SLOPE_SHIFT"}
    entries = {"DPU_LUT_ACCESS_CFG", "DPU_LUT_ACCESS_DATA", "DPU_EW_CVT_SCALE", "DPU_RDMA_WEIGHT"}
    kept = [{k: v for k, v in found.items() if k not in own | entries} for found in (ours, theirs)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 32, 16), "8 rows, expected a multiple of 4 from 12"),
        ((14, 32, 16), "14 rows"),
        ((12, 48, 16), "48 inputs, expected a multiple of 32"),
        ((12, 32, 8), "8 columns, expected a multiple of 16 up to 4096"),
        ((12, 32, 4112), "4112 columns"),
        ((512, 512, 16), "needs 16 data and 2 weight banks, expected at most 12"),
    ],
)
def test_products_beyond_a_limit_are_refused(shape, message):
    with pytest.raises(NpuError, match=message):
        float_product_program(*shape, A, B, C)


@pytest.mark.parametrize("elements", [0, 12, 32776])
def test_blocks_of_another_size_are_refused(elements):
    with pytest.raises(NpuError, match="expected a multiple of 8 up to 32768"):
        pair_program(Combine.ADD, elements, A, B, C)
