"""What lint says of look-up tables: known faults of hardware, planted into a sound look-up pass."""

from dataclasses import replace

import pytest

from rockledge.npu.lut import sigmoid_table
from rockledge.npu.programs.elementwise import table_program
from rockledge.npu.stream import Address
from rockledge_npu_lab.linting.check import lint

TABLE = sigmoid_table(-3.0, 3.0)
ADDRESSES = {"input": 1 << 24, "output": 2 << 24}


def reasons(table=TABLE, change=lambda words: words):
    words = table_program(table, 64, Address("input"), Address("output")).at(ADDRESSES).tolist()
    return [(finding.about, finding.reason) for finding in lint(change(words))]


def changed(entries, at, value):
    return (*entries[:at], *value, *entries[at + len(value) :])


def with_register(offset, value):
    def change(words):
        return [
            word & ~(0xFFFFFFFF << 16) | value << 16
            if (word >> 48, word & 0xFFFF) == (0x1001, offset)
            else word
            for word in words
        ]

    return change


def test_solved_tables_are_sound():
    assert reasons() == []


@pytest.mark.parametrize(
    ("table", "about", "reason"),
    [
        (replace(TABLE, positive=changed(TABLE.positive, 9, (0,))), "DPU_LUT_ACCESS_DATA", "entries of 0"),
        (
            replace(TABLE, negative=changed(TABLE.negative, 9, (700,) * 3)),
            "DPU_LUT_ACCESS_DATA",
            "three equal",
        ),
    ],
)
def test_faulty_entries_are_found(table, about, reason):
    ((where, why),) = reasons(table)
    assert where == about
    assert reason in why


@pytest.mark.parametrize(
    ("offset", "value", "about", "reason"),
    [
        (0x4080, 0xFFFFC000, "DPU_OUT_CVT_OFFSET", "the output offset is negative"),
        (0x4108, 0x60, "DPU_LUT_CFG", "mode 0x60; 0x68 is the only one known"),
        (0x4100, 0, "DPU_LUT_ACCESS_DATA", "1026 entries of the tables are not loaded in this stream"),
        (0x4030, 4096, "DPU_DATA_CUBE_WIDTH", "4097 pixels in one look-up, expected at most 4096"),
    ],
)
def test_faulty_registers_are_found(offset, value, about, reason):
    assert any(
        where == about and reason in why for where, why in reasons(change=with_register(offset, value))
    )


def test_an_entry_behind_the_last_is_found():
    def longer(words):
        last = max(i for i, word in enumerate(words) if (word >> 48, word & 0xFFFF) == (0x1001, 0x4104))
        return [*words[: last + 1], words[last], words[last], *words[last + 1 :]]

    assert ("DPU_LUT_ACCESS_DATA", "entry 513 of a table of 513") in reasons(change=longer)
