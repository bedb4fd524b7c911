"""Streams: trailers and links as golden programs have them, relocation, and refusal of anything else."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.errors import NpuError
from rockledge.npu import isa, stream

GOLDEN = json.loads((Path(__file__).parent / "regcmd_golden.json").read_text())["cases"]


def golden(case_id: str) -> list[tuple[int, ...]]:
    case = next(case for case in GOLDEN if case["id"] == case_id)
    return [tuple(int(word, 16) for word in task["words"]) for task in case["tasks"]]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_golden_programs_parse_as_their_file_says(case: dict) -> None:
    for index, task in enumerate(case["tasks"]):
        (program,) = stream.parse([int(word, 16) for word in task["words"]])
        assert len(program.body) == task["regcfg_amount"]
        assert f"{isa.word(0x81, 8, program.trailer.enable):016x}" == task["op_enable_word"]
        last = index + 1 == len(case["tasks"])
        assert (program.trailer.next_address is None) == last
        if not last:
            following = case["tasks"][index + 1]
            assert program.trailer.next_address == int(following["regcmd_addr"], 16)
            assert program.trailer.next_amount == stream.pairs(len(following["words"]))


def test_our_chain_of_golden_bodies_is_the_golden_chain() -> None:
    tasks = golden("allbilly_int8_int32_m4_k2048_n512")
    bodies = [
        stream.build(
            [(isa.register_of(*_place(word)).name, isa.split(word)[1]) for word in words[:-4]],
            isa.ENABLE_CONV,
        )
        for words in tasks
    ]
    chained = stream.chain(bodies)
    words = chained.at({"program": 0x100000}).tolist()
    # The generator places its programs of 49 words 50 words apart, and marks "no next program" by target 1.
    for start, expected in zip(chained.starts, tasks, strict=True):
        ours = tuple(words[start : start + 49])
        if expected[-4] == isa.word(1, 0, 0):
            ours = (*ours[:-4], isa.word(1, 0, 0), *ours[-3:])
        assert ours == expected
        assert start % 2 == 0
    assert [program.trailer.enable for program in stream.parse(chained.words)] == [0x0D] * 4
    assert chained.body_words == (45,) * 4


def _place(word: int) -> tuple[int, int]:
    target, _, offset = isa.split(word)
    return target, offset


def test_relocations_take_the_given_addresses() -> None:
    program = stream.build(
        [
            ("CNA_FEATURE_DATA_ADDR", stream.Address("input", 64)),
            ("DPU_DST_BASE_ADDR", stream.Address("output")),
        ],
        isa.ENABLE_CONV,
    )
    words = program.at({"input": 0x1000, "output": 0xFFFFF000})
    assert words.dtype == np.uint64
    assert isa.split(int(words[0])) == (0x0201, 0x1040, 0x1070)
    assert isa.split(int(words[1])) == (0x1001, 0xFFFFF000, 0x4020)
    assert len(words) == 6
    with pytest.raises(NpuError, match="needs the address of output"):
        program.at({"input": 0})
    with pytest.raises(NpuError, match="32-bit"):
        program.at({"input": 2**32 - 64, "output": 0})


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**20))
def test_chains_link_every_program_to_the_next(bodies: list[int], place: int) -> None:
    programs = [stream.build([("CNA_PAD_CON1", i)] * size, 0x0D) for i, size in enumerate(bodies)]
    chained = stream.chain(programs)
    base = place * 16
    words = chained.at({"program": base}).tolist()
    parsed = stream.parse(words)
    assert [len(program.body) for program in parsed] == bodies
    assert chained.starts == tuple(program.start for program in parsed)
    for program, following in pairwise(parsed):
        assert program.trailer.next_address == base + 8 * following.start
        assert program.trailer.next_amount == -(-len(following.body) // 2) + 1
        assert program.trailer.next_address % 16 == 0
    assert parsed[-1].trailer.next_address is None
    # Fetching in pairs must never reach past the stream.
    assert len(words) % 2 == 0


def test_chains_of_chains_keep_their_order() -> None:
    one = stream.build([("CNA_PAD_CON1", 1), ("DPU_DST_BASE_ADDR", stream.Address("output", 16))], 0x0D)
    chained = stream.chain([stream.chain([one, one]), one])
    parsed = stream.parse(chained.at({"program": 0x40, "output": 0x100}).tolist())
    assert len(parsed) == 3
    assert all(isa.split(program.body[1])[1] == 0x110 for program in parsed)
    assert parsed[1].trailer.next_address == 0x40 + 8 * parsed[2].start


def test_a_chain_must_start_on_sixteen_bytes() -> None:
    one = stream.build([("CNA_PAD_CON1", 1)], 0x0D)
    with pytest.raises(NpuError, match="multiple of 16"):
        stream.chain([one, one]).at({"program": 8})


def test_bytes_become_words() -> None:
    words = golden("mtx_int8_int32_m64_k512_n256")[0]
    assert stream.words_of(np.array(words, "<u8").tobytes()) == words
    with pytest.raises(NpuError, match="multiple of 8"):
        stream.words_of(b"12345")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "empty"),
        ([isa.write("CNA_PAD_CON1", 1)], "without an enable word"),
        ([isa.word(0x81, 8, 13)], "does not fit"),
        ([0, isa.write("PC_REGISTER_AMOUNTS", 0), 0, isa.word(0x81, 8, 13)], "word 2 .* marker"),
        ([0, 0, isa.word(0x41, 0, 0), isa.word(0x81, 8, 13)], "word 1 .* PC_REGISTER_AMOUNTS"),
        (
            [
                isa.write("CNA_PAD_CON1", 1),
                isa.write("PC_REGISTER_AMOUNTS", 0),
                isa.word(0x41, 0, 0),
                isa.word(0x81, 8, 13),
            ],
            "word 0 .* next program's address",
        ),
    ],
)
def test_what_is_no_program_is_refused(words: list[int], message: str) -> None:
    with pytest.raises(NpuError, match=message):
        stream.parse(words)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_parsing_random_words_ends_in_programs_or_a_refusal(words: list[int]) -> None:
    try:
        programs = stream.parse(words)
    except NpuError:
        return
    assert programs
