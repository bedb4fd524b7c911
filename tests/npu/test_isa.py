"""The register table: fields never overlap, words and values survive coding, what does not fit is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu import isa

GOLDEN = json.loads((Path(__file__).parent / "regcmd_golden.json").read_text())["cases"]


def test_every_register_is_listed_once_within_its_block() -> None:
    assert len({(register.block.name, register.offset) for register in isa.REGISTERS.values()}) == len(
        isa.REGISTERS
    )
    for register in isa.REGISTERS.values():
        assert register.block.base <= register.offset < register.block.base + 0x1000
        assert register.offset % 4 == 0


def test_fields_of_a_register_share_no_bit() -> None:
    for register in isa.REGISTERS.values():
        taken = 0
        for field in register.fields:
            assert 31 >= field.high >= field.low >= 0
            mask = field.limit << field.low
            assert not taken & mask, (register.name, field.name)
            taken |= mask


def test_golden_programs_write_named_bits_of_named_registers_only() -> None:
    # Bits that golden programs set although the sheet gives them no name would be a gap in the table.
    for case in GOLDEN:
        for task in case["tasks"]:
            for text in task["words"][:-4]:
                target, value, offset = isa.split(int(text, 16))
                register = isa.register_of(target, offset)
                assert register is not None, text
                assert not isa.unnamed_bits(register, value), (register.name, hex(value))


@pytest.mark.parametrize(
    ("name", "fields", "value"),
    [
        # The worked table of the reference sheet (int8 M 64, K 512, N 256) gives these values.
        ("CNA_CONV_CON2", {"feature_grains": 65}, 0x410),
        ("CNA_DATA_SIZE0", {"width": 1, "height": 64}, 0x10040),
        ("CNA_DATA_SIZE1", {"real_channels_minus_1": 511, "channels": 512}, 0x01FF0200),
        ("CNA_WEIGHT_SIZE2", {"kernel_width": 1, "kernel_height": 1, "kernels": 256}, 0x01010100),
        ("CNA_CBUF_CON0", {"weight_bank": 11, "data_bank": 1}, 0xB1),
        ("DPU_FEATURE_MODE_CFG", {"burst_len": 15, "output_mode": 2}, 0x1E4),
        ("DPU_DATA_FORMAT", {"out_precision": 4}, 0x80000000),
        ("DPU_BS_OW_CFG", {"size_e_0": 7, "size_e_1": 7, "size_e_2": 7, "od_bypass": 1}, 0x7FE),
        ("DPU_RDMA_FEATURE_MODE_CFG", {"burst_len": 15, "mrdma_disable": 1}, 0x7810),
    ],
)
def test_known_values(name: str, fields: dict[str, int], value: int) -> None:
    assert isa.encode(name, **fields) == value
    decoded = isa.decode(name, value)
    assert {key: number for key, number in decoded.items() if number} == fields


@given(st.sampled_from(sorted(isa.REGISTERS)), st.integers(0, 2**32 - 1))
def test_encode_undoes_decode(name: str, value: int) -> None:
    register = isa.REGISTERS[name]
    assert isa.encode(name, **isa.decode(name, value)) == value & ~isa.unnamed_bits(register, value)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1))
def test_split_undoes_word(target: int, offset: int, value: int) -> None:
    assert isa.split(isa.word(target, offset, value)) == (target, value, offset)


def test_a_value_beyond_its_field_names_register_field_and_limit() -> None:
    with pytest.raises(NpuError, match=r"CNA_DATA_SIZE0\.height is 2048, expected 0 to 2047"):
        isa.encode("CNA_DATA_SIZE0", width=1, height=2048)
    with pytest.raises(NpuError, match=r"DPU_DATA_CUBE_WIDTH\.width_minus_1 is -1"):
        isa.encode("DPU_DATA_CUBE_WIDTH", width_minus_1=-1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(NpuError, match="no NPU register CNA_NOTHING"):
        isa.encode("CNA_NOTHING", width=1)
    with pytest.raises(NpuError, match="no field depth; it has width, height"):
        isa.encode("CNA_DATA_SIZE0", depth=1)
    with pytest.raises(NpuError, match="value"):
        isa.write("CNA_PAD_CON1", 1 << 32)
