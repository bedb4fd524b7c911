"""Disassembler and assembler are inverses on every word, and what is printed says what the word does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu.isa import BLOCKS, REGISTERS, word, write
from rockledge_npu_lab.disassemble import assemble, describe, disassemble

values = st.integers(0, 2**32 - 1)
known_words = st.builds(write, st.sampled_from(sorted(REGISTERS)), values)
special_words = st.builds(
    word, st.sampled_from([0x0000, 0x0001, 0x0041, 0x0081, 0x0101]), st.sampled_from([0, 8, 0x10]), values
)
any_words = st.integers(0, 2**64 - 1)


@given(st.lists(st.one_of(known_words, special_words, any_words)))
def test_the_text_gives_the_same_words_back(words):
    assert assemble("\n".join(disassemble(words))) == words


@given(st.lists(known_words, min_size=1))
def test_comments_and_blank_lines_count_for_nothing(words):
    text = "\n\n".join(f"  {line}   ; a comment" for line in disassemble(words))
    assert assemble("; head\n" + text) == words


@pytest.mark.parametrize(
    "command, text",
    [
        (0x0201_00010040_1020, "CNA_DATA_SIZE0 width=1 height=64"),
        (0x0201_00000120_100C, "CNA_CONV_CON1 proc_precision=fp16 in_precision=fp16"),
        (0x1001_80000000_4010, "DPU_DATA_FORMAT out_precision=int32"),
        (0x0201_01000000_1070, "CNA_FEATURE_DATA_ADDR address=0x1000000"),
        (0x0801_00000000_3030, "CORE_UNKNOWN_3030 0"),
        (0x0081_0000000D_0008, "enable CNA CORE DPU"),
        (0x0081_00000080_0008, "enable unnamed=0x80"),
        (0x0041_00000000_0000, "marker"),
        (0, "nop"),
        (0x0401_12345678_2000, ".word 0401123456782000"),
        (0x0801_00000080_3010, "CORE_MISC_CFG unnamed=0x80"),
    ],
)
def test_a_word_reads_as_what_it_does(command, text):
    assert describe(command) == text


def test_every_enable_bit_has_its_block_in_the_text():
    for block in BLOCKS:
        if block.enable is not None:
            assert describe(word(0x0081, 8, 1 << block.enable)) == f"enable {block.name}"


@pytest.mark.parametrize(
    "text, words",
    [
        ("CNA_DATA_SIZE9 width=1", "line 1: there is no NPU register CNA_DATA_SIZE9"),
        ("nop\nCNA_DATA_SIZE0 depth=1", "line 2: CNA_DATA_SIZE0 has no field depth"),
        ("CNA_DATA_SIZE0 height=2048", "expected 0 to 2047"),
        ("CNA_CONV_CON1 in_precision=fp8", "line 1: .* is not a command word"),
        ("CNA_DATA_SIZE0", "is not a command word"),
        ("CNA_DATA_SIZE0 width", "is not a command word"),
        ("nop 1", "is not a command word"),
        (".word 12", "is not a command word"),
        ("enable GPU", "there is no block GPU"),
        ("CNA_DATA_SIZE0 unnamed=0x1", "bits of named fields"),
    ],
)
def test_a_text_that_is_not_a_program_is_refused_with_its_line(text, words):
    with pytest.raises(NpuError, match=words):
        assemble(text)
