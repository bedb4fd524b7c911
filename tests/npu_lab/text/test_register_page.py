"""The page of registers: what the tree ships is what the table says, and nothing of the table is missing."""

import re
from pathlib import Path

from rockledge.npu.isa import REGISTERS
from rockledge_npu_lab.text.register_page import register_page

SHIPPED = Path(__file__).parents[3] / "docs" / "npu-registers.md"


def test_the_shipped_page_is_the_tables() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == register_page(), (
        "write it again, see npu_lab/src/rockledge_npu_lab/text/register_page.py"
    )


def test_every_register_and_field_stands_in_it_once() -> None:
    rows = [line for line in register_page().splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) == sum(max(1, len(register.fields)) for register in REGISTERS.values())
    for register in REGISTERS.values():
        (row,) = (line for line in rows if f"| `{register.name}` |" in line)
        assert row.startswith(f"| 0x{register.offset:04x} |")


def test_rows_have_as_many_cells_as_their_heading() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", register_page(), re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
