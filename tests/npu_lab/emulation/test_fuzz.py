"""Hostile streams end, in results or in a refusal, and touch nothing but the memory that was given."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu_lab import sheet

from rockledge.errors import NpuError
from rockledge.npu import isa
from rockledge_npu_lab.emulation.core import Core
from rockledge_npu_lab.emulation.memory import Buffer, Memory
from rockledge_npu_lab.emulation.options import BadBuffer, EarlyEnd, Notch, Options, SpareBank, Stale

GOLDEN = json.loads((Path(__file__).parents[2] / "npu" / "regcmd_golden.json").read_text())["cases"]
SMALL = (
    "mtx_fp16_fp16_m4_k64_n16",
    "gor_fp16_fp16_ewmul_m32_k64_n64",
    "gor_tf32_fp32_m16_k128_n64",
    "gor_int4_int16_m64_k256_n128",
    "gor_dwconv1x1_int8_int8_c64_8x8",
    "gor_lut_sigmoid_n1024",
    "allbilly_int8_int32_m64_k384_n96",
    "allbilly_int8_int32_m3_k1024_n1024",
)
PROGRAMS = {
    case["id"]: [[int(word, 16) for word in task["words"]] for task in case["tasks"]]
    for case in GOLDEN
    if case["id"] in SMALL
}
ROLES = {"input": 0x01000000, "weight": 0x02000000, "output": 0x03000000, "operand": 0x04000000}
SIZES = {"input": 1 << 16, "weight": 1 << 20, "output": 1 << 16, "operand": 1 << 14}
PROGRAM = 0x00100000
GUARD = 256
NOISE = np.random.default_rng(0).integers(0, 256, 1 << 16, np.uint8)
LENIENT = Options(
    bad_buffer=BadBuffer.ZEROS,
    spare_bank=SpareBank.CORRUPT,
    early_end=EarlyEnd.MODEL,
    notch=Notch.FIRST,
    stale=Stale.RESET,
    report_unwritten=True,
    lane0_event_rate=0.5,
)


class World:
    """All buffers inside one array, with guards around them that nothing may touch."""

    def __init__(self, words: list[int]) -> None:
        sizes = {**SIZES, "program": 8 * len(words)}
        places, used = {}, GUARD
        for name, size in sizes.items():
            places[name] = slice(used, used + size)
            used += size + GUARD
        self.bytes = np.resize(NOISE, used)
        self.guards = [slice(0, GUARD), *(slice(place.stop, place.stop + GUARD) for place in places.values())]
        self.bytes[places["program"]] = np.array(words, np.uint64).view(np.uint8)
        addresses = {**ROLES, "program": PROGRAM}
        self.memory = Memory(
            [Buffer(name, addresses[name], self.bytes[place]) for name, place in places.items()]
        )

    def kick(self, body: int, tasks: int, options: Options, mask: int = 0x300) -> None:
        """Runs; nothing but NpuError may come out, and the guards must stay."""
        before = [self.bytes[guard].copy() for guard in self.guards]
        with suppress(NpuError):
            done = Core(self.memory, options).kick(PROGRAM, body, tasks, mask)
            assert done.programs == tasks
        assert all((self.bytes[g] == b).all() for g, b in zip(self.guards, before, strict=True))


OPTIONS = st.sampled_from([Options(), LENIENT])
VALUES = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FF0100, *ROLES.values()]),
)
NAMED_WORDS = st.builds(isa.write, st.sampled_from(sorted(isa.REGISTERS)), VALUES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(0, 60), st.integers(1, 3))
def test_random_words(words, body, tasks):
    World([*words, 0, 0]).kick(body, tasks, Options())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(NAMED_WORDS, max_size=30),
    st.sampled_from([0x0D, 0x1D, 0x18]),
    OPTIONS,
    st.sampled_from([0x300, 0x30, 0xC00, 0]),
)
def test_random_registers(body, enable, options, mask):
    trailer = [0, isa.write("PC_REGISTER_AMOUNTS", 0), isa.word(0x41, 0, 0), isa.word(0x81, 8, enable)]
    World([*body, *trailer, 0]).kick(len(body), 1, options, mask)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_golden_programs(data):
    tasks = [list(words) for words in PROGRAMS[data.draw(st.sampled_from(sorted(PROGRAMS)))]]
    for _ in range(data.draw(st.integers(1, 3))):
        words = data.draw(st.sampled_from(tasks))
        at = data.draw(st.integers(0, len(words) - 1))
        how = data.draw(st.sampled_from(["bit", "value", "word", "drop"]))
        if how == "bit":
            words[at] ^= 1 << data.draw(st.integers(0, 63))
        elif how == "value":
            words[at] = words[at] & 0xFFFF00000000FFFF | data.draw(VALUES) << 16
        elif how == "word":
            words[at] = data.draw(st.one_of(NAMED_WORDS, st.integers(0, 2**64 - 1)))
        else:
            del words[at]
    whole = [word for words in tasks for word in [*words, *[0] * (len(words) % 2)]]
    World([*whole, 0, 0]).kick(len(tasks[0]) - 4, len(tasks), data.draw(OPTIONS))


STRIDES = {
    "CNA_DMA_CON1": st.integers(0, 2**28 - 1),
    "CNA_DMA_CON2": st.integers(0, 2**28 - 1),
    "DPU_DST_SURF_STRIDE": st.integers(0, 2**12).map(lambda x: 16 * x),
    "DPU_SURFACE_ADD": st.integers(0, 2**12).map(lambda x: 16 * x),
    "DPU_DATA_CUBE_NOTCH": st.integers(0, 64).map(lambda x: x << 16 | x),
    "CNA_FEATURE_DATA_ADDR": st.integers(0, 2**12).map(lambda x: ROLES["input"] + 16 * x),
    "CNA_DCOMP_ADDR0": st.integers(0, 2**12).map(lambda x: ROLES["weight"] + 16 * x),
    "DPU_DST_BASE_ADDR": st.integers(0, 2**12).map(lambda x: ROLES["output"] + 16 * x),
    "CNA_CONV_CON1": st.sampled_from([0, 1 << 29]),
    "CNA_CBUF_CON0": st.integers(0, 0xFFFF),
}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_sound_programs_at_unsound_places(data):
    kind, out = data.draw(st.sampled_from(sheet.PAIRS))
    _, _, _, group, run = sheet.TYPES[kind]
    shape = sheet.Shape(
        kind,
        out,
        data.draw(st.integers(1, 40)),
        run * data.draw(st.integers(1, 4)),
        group * data.draw(st.integers(1, 3)),
        data.draw(st.sampled_from(sheet.FORMS)),
    )
    chosen = data.draw(st.sets(st.sampled_from(sorted(STRIDES)), min_size=1, max_size=4))
    changes = {name: data.draw(STRIDES[name]) for name in sorted(chosen)}
    words = sheet.program(shape, changes).at(ROLES).tolist()
    World([*words, 0, 0]).kick(len(words) - 4, 1, data.draw(OPTIONS))
