"""docs/npu-registers.md, written from the table of registers:

python -m rockledge_npu_lab.text.register_page > docs/npu-registers.md
"""

import sys

from rockledge.npu.isa import BLOCKS, PRECISIONS, REGISTERS, Block, Field, Register


def register_page() -> str:
    """The page as Markdown: blocks, number types, then every register with its fields."""
    lines = [
        "# Registers of the NPU",
        "",
        "Written by `python -m rockledge_npu_lab.text.register_page` from the table in `npu/isa.py`, shared",
        "by encoder, decoder, disassembler and lint.",
        (
            "A field that ends in `_minus_1` holds its value less one. [I] inferred, [X] sources disagree, "
            "[?] not known."
        ),
        "",
        "| block | target | page | enable bit | what it does |",
        "| --- | --- | --- | --- | --- |",
        *(_row(_block(block)) for block in BLOCKS),
        "",
        "| type | bits | code in CNA and CORE | code in the DPU |",
        "| --- | --- | --- | --- |",
        *(_row([p.name, str(p.bits), _code(p.cna), _code(p.dpu)]) for p in PRECISIONS.values()),
    ]
    for block in BLOCKS:
        lines += [
            "",
            f"## {block.name}",
            "",
            "| offset | register | bits | field | about |",
            "| --- " * 5 + "|",
        ]
        for register in REGISTERS.values():
            if register.block is block:
                lines += [_row(cells) for cells in _register(register)]
    return "\n".join(lines) + "\n"


def _block(block: Block) -> list[str]:
    enable = "" if block.enable is None else str(block.enable)
    return [block.name, f"0x{block.target:04x}", f"0x{block.base:04x}", enable, block.about]


def _register(register: Register) -> list[list[str]]:
    """One row a field; the first also names the register."""
    rows = [["", "", _bits(field), f"`{field.name}`", field.about] for field in register.fields]
    rows = rows or [[""] * 5]
    rows[0][:2] = [f"0x{register.offset:04x}", f"`{register.name}`"]
    rows[0][4] = "; ".join(text for text in (register.about, rows[0][4]) if text)
    return rows


def _bits(field: Field) -> str:
    return str(field.high) if field.high == field.low else f"{field.high}:{field.low}"


def _code(code: int | None) -> str:
    return "" if code is None else str(code)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(register_page())
