"""A listing holds every word, reads back as the same words, and marks findings where they are."""

from hypothesis import given
from hypothesis import strategies as st

from rockledge.npu.isa import REGISTERS, write
from rockledge.npu.programs.tile_program import addition_program, product_program
from rockledge.npu.stream import chain
from rockledge_npu_lab.disassemble import assemble
from rockledge_npu_lab.linting.check import lint
from rockledge_npu_lab.text.listing import listing

ADDRESSES = {"input": 0x1000, "weight": 0x20000, "output": 0x40000, "scratch": 0x60000, "program": 0x80000}
known_words = st.builds(write, st.sampled_from(sorted(REGISTERS)), st.integers(0, 2**32 - 1))


@given(st.lists(st.one_of(known_words, st.integers(0, 2**64 - 1)), min_size=1, max_size=30))
def test_a_listing_reads_back(words):
    assert assemble(listing(words, lint(words))) == words


def test_programs_have_heads_and_findings_stand_at_their_words():
    words = chain([product_program(4, 32, 32), addition_program(4, 32)]).at(ADDRESSES).tolist()
    at = next(i for i, command in enumerate(words) if command >> 48 == 0x0201 and command & 0xFFFF == 0x1040)
    words[at] = write("CNA_CBUF_CON0", 0xCC)
    lines = listing(words, lint(words)).splitlines()
    assert "; program 0: 122 words and a trailer, starts CNA CORE DPU DPU_RDMA" in lines
    assert any(line.startswith("; program 1: ") and line.endswith("starts DPU DPU_RDMA") for line in lines)
    (mark,) = (i for i, line in enumerate(lines) if "suspicious" in line)
    assert lines[mark - 1].startswith("CNA_CBUF_CON0")
    assert "12 data and 12 weight banks" in lines[mark]
