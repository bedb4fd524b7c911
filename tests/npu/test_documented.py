"""What docs/npu.md says: its example runs, every difference from MTX and every option stands in it."""

import re
from dataclasses import fields
from enum import Enum
from pathlib import Path

import pytest
from tests.npu.programs.test_tile_program import FROM_MTX

from rockledge.npu.programs.tile_program import LARGEST_ROWS, LARGEST_SIZE
from rockledge_npu_lab.emulation import options
from rockledge_npu_lab.emulation.options import Options

TEXT = (Path(__file__).parents[2] / "docs/npu.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line[:1] == "|"
]


def row(name):
    (found,) = (cells for cells in ROWS if cells[0] == f"`{name}`")
    return found


def test_the_examples_run():
    matmul, softmax = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {}
    exec(matmul, names)
    assert names["words"].dtype.itemsize == 8
    exec(softmax, names)
    assert f"{len(names['operator'].program.starts)} programs, one submit" in softmax
    assert names["flags"] == ()


def test_every_difference_from_mtx_is_explained():
    for register, field in FROM_MTX:
        assert row("enable" if register == "enable" else f"{register}.{field}")[3]
    assert any("all registers of DPU_RDMA" in cells[0] for cells in ROWS)


@pytest.mark.parametrize("field", fields(Options), ids=lambda field: field.name)
def test_every_option_stands_there_with_its_values_and_the_default_first(field):
    values = row(field.name)[1].split(", ")
    if isinstance(field.default, Enum):
        names = [value.value for value in type(field.default)]
        assert sorted(values) == sorted(names)
        assert values[0] == field.default.value
    elif isinstance(field.default, bool):
        assert values == ["no", "yes"]
        assert field.default is False
    elif isinstance(field.default, tuple):
        assert values[0] == " ".join(map(str, field.default))
    else:
        assert eval(values[0].replace("^", "**")) == field.default


def test_no_option_stands_there_that_does_not_exist():
    table = TEXT[TEXT.index("| option |") :].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert named == [field.name for field in fields(Options)]
    assert all(hasattr(options.DEFAULT, name) for name in named)


def test_the_limits_are_those_of_the_programs():
    assert any(cells[:2] == ["rows", f"{LARGEST_ROWS:,}"] for cells in ROWS)
    assert any(cells[:2] == ["columns", f"{LARGEST_SIZE:,}"] for cells in ROWS)
