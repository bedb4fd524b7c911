"""Our programs beside those of two generators whose output ran on hardware, and the limits of one program."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu.isa import REGISTERS, decode, register_of, split
from rockledge.npu.programs.tile_program import addition_program, product_program
from rockledge.npu.stream import parse

GOLDEN = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "regcmd_golden.json").read_text())["cases"]
    if case.get("dtype_out") == "int32"
}
ADDRESSES = {"input": 0x0100_0000, "weight": 0x0200_0000, "output": 0x0300_0000}

# What differs from MTX, field by field: our value as a function of MTX's. docs/npu.md explains each.
FROM_MTX = {
    ("CNA_CBUF_CON0", "data_bank"): lambda banks: banks + 1,
    ("CNA_CBUF_CON0", "weight_bank"): lambda banks: banks - 1,
    ("enable", "enable"): lambda blocks: blocks | 1 << 4,
}
# Registers that MTX never writes and ours does: all of DPU_RDMA. What they hold where that is not 0, by rows
# and columns: reads switched off, and the cube of the output.
MTX_LEAVES_OUT = {name for name, register in REGISTERS.items() if register.block.name == "DPU_RDMA"}
IN_DPU_RDMA = {
    "DPU_RDMA_S_POINTER": lambda rows, columns: 0xE,
    "DPU_RDMA_DATA_CUBE_HEIGHT": lambda rows, columns: rows - 1,
    "DPU_RDMA_DATA_CUBE_CHANNEL": lambda rows, columns: columns - 1,
    "DPU_RDMA_ERDMA_CFG": lambda rows, columns: 1,
    "DPU_RDMA_FEATURE_MODE_CFG": lambda rows, columns: 0x7810,
    "DPU_RDMA_WEIGHT": lambda rows, columns: 0x01010101,
}


def golden_of(generator):
    return [name for name in GOLDEN if name.startswith(generator)]


def ours(case):
    return product_program(case["M"], case["K"], case["N"]).at(ADDRESSES).tolist()


def theirs(case):
    return [int(word, 16) for word in case["tasks"][0]["words"]]


def registers(words):
    """Every register of a program with its value, and the enable word."""
    (program,) = parse(words)
    found = {"enable": program.trailer.enable}
    for command in program.body:
        target, value, offset = split(command)
        found[register_of(target, offset).name] = value
    return found


def fields(name, value):
    return {"enable": value} if name == "enable" else decode(name, value)


@pytest.mark.parametrize("name", golden_of("mtx_int8"))
def test_only_listed_fields_differ_from_mtx(name):
    mine, mtx = registers(ours(GOLDEN[name])), registers(theirs(GOLDEN[name]))
    assert set(mine) - set(mtx) == MTX_LEAVES_OUT
    assert set(mtx) <= set(mine)
    for register in MTX_LEAVES_OUT:
        expected = IN_DPU_RDMA.get(register, lambda rows, columns: 0)
        assert mine[register] == expected(GOLDEN[name]["M"], GOLDEN[name]["N"]), register
    differing = {
        (register, field)
        for register, value in mtx.items()
        for field, number in fields(register, value).items()
        if fields(register, mine[register])[field] != number
    }
    assert differing == set(FROM_MTX)
    for (register, field), expected in FROM_MTX.items():
        assert fields(register, mine[register])[field] == expected(fields(register, mtx[register])[field])


@pytest.mark.parametrize("name", golden_of("gor_int8"))
def test_the_words_are_those_of_the_generator_for_both_drivers(name):
    assert ours(GOLDEN[name]) == theirs(GOLDEN[name])


def test_the_addition_has_the_words_known_from_hardware():
    found = registers(addition_program(64, 96).at({"output": 0x0300_0000, "scratch": 0x0400_0000}).tolist())
    assert found["DPU_EW_CFG"] == 0x10C203C0
    assert found["DPU_DATA_FORMAT"] == 4 << 29 | 4 << 26 | 4
    assert found["DPU_FEATURE_MODE_CFG"] == 0x1E5
    assert found["DPU_RDMA_FEATURE_MODE_CFG"] == 0x27881
    assert found["DPU_RDMA_ERDMA_CFG"] == 0x4000000C
    assert found["enable"] == 0x18
    assert found["DPU_DST_BASE_ADDR"] == found["DPU_RDMA_SRC_BASE_ADDR"] == 0x0300_0000
    assert found["DPU_RDMA_EW_BASE_ADDR"] == 0x0400_0000


rows = st.integers(1, 64).map(lambda quarter: 4 * quarter)


@given(rows, st.integers(1, 40), st.integers(1, 200))
def test_a_program_that_is_given_keeps_every_size_and_bank_rule(height, runs, groups):
    inputs, columns = 32 * runs, 32 * groups
    if height * inputs > (12 - 1 - -(-inputs * 32 // 32768)) * 32768:
        with pytest.raises(NpuError, match="12 banks"):
            product_program(height, inputs, columns)
        return
    program = product_program(height, inputs, columns)
    found = registers(program.at(ADDRESSES).tolist())
    banks = decode("CNA_CBUF_CON0", found["CNA_CBUF_CON0"])
    assert banks["data_bank"] + banks["weight_bank"] <= 12
    assert (banks["data_bank"] - 1) * 32768 >= height * inputs
    assert banks["weight_bank"] * 32768 >= 32 * inputs
    assert decode("CNA_DATA_SIZE0", found["CNA_DATA_SIZE0"]) == {"width": 1, "height": height}
    assert found["CNA_WEIGHT_SIZE0"] == inputs * columns


@pytest.mark.parametrize(
    "act, words",
    [
        (lambda: product_program(6, 32, 32), "a tile has 6 rows.*multiple of 4, at most 1020"),
        (lambda: product_program(1024, 32, 32), "at most 1020"),
        (lambda: product_program(0, 32, 32), "a tile has 0 rows"),
        (lambda: product_program(4, 32, 48), "multiple of 32 up to 8160"),
        (lambda: product_program(4, 32, 8192), "DPU_DATA_CUBE_CHANNEL has 13 bits"),
        (lambda: product_program(4, 40, 32), "a tile has 40 inputs"),
        (lambda: product_program(128, 4096, 32), "at least 17 .one spare."),
        (lambda: product_program(4, 14336, 32), "and 14 of 12 banks"),
        (lambda: product_program(4, 1024, 32, banks=(2, 11)), "has 2 data and 11 weight banks"),
        (lambda: addition_program(4, 34), "multiple of 4; pad the columns"),
        (lambda: addition_program(8192, 32), "split the rows"),
        (lambda: addition_program(4, 32768), "at most 32640"),
    ],
)
def test_an_impossible_tile_names_the_limit(act, words):
    with pytest.raises(NpuError, match=words):
        act()
