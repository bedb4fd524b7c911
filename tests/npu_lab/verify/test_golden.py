"""Golden programs pass with any operands; wrong programs and wrong files fail with a reason."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.npu_lab import sheet

from rockledge.errors import NpuError
from rockledge.npu import isa
from rockledge_npu_lab.emulation.options import FloatSum, Options
from rockledge_npu_lab.verify import golden, golden_layout

PATH = Path(__file__).parents[2] / "npu" / "regcmd_golden.json"
CASES = {case["id"]: case for case in json.loads(PATH.read_text())["cases"]}
SMALL = [name for name, case in CASES.items() if case.get("M", 1) * case.get("K", 1) * case.get("N", 1) < 1e6]
ELSEWHERE = [name for name in SMALL if "ew" not in name] + ["gor_lut_sigmoid_n1024"]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SMALL), st.integers(0, 2**32))
def test_golden_programs_pass_with_any_operands(name, seed):
    outcome = golden.verify(CASES[name], seed)
    assert outcome.passed, outcome
    if CASES[name]["dtype_in"].startswith("int"):
        assert outcome.error == 0


@pytest.mark.parametrize("name", sorted(set(ELSEWHERE)))
def test_golden_programs_do_the_same_elsewhere(name):
    # Operands and results anywhere else: every address register moves with them.
    case = copy.deepcopy(CASES[name])
    moves = {
        role: 0x7FF00000 + 0x02340010 * index for index, role in enumerate(("input", "weight", "output"))
    }
    moves["bias"] = 0x00004560
    moved = {}
    for role, text in case["addresses"].items():
        if role in moves:
            moved[int(text, 16)] = moves[role]
            case["addresses"][role] = f"{moves[role]:#010x}"
    for task in case["tasks"]:
        for index, text in enumerate(task["words"]):
            target, value, offset = isa.split(int(text, 16))
            register = isa.register_of(target, offset)
            if register is not None and "ADDR" in register.name and register.block.name != "PC":
                base = max((at for at in moved if at <= value), default=None)
                if base is not None and value:
                    task["words"][index] = f"{isa.word(target, offset, value - base + moved[base]):016x}"
    assert golden.verify(case).passed, golden.verify(case)


def our_case(shape: sheet.Shape, addresses: dict[str, int]) -> dict:
    """A shape's program as a case of the file's form."""
    group, run = sheet.TYPES[shape.kind][3:]
    bits = sheet.TYPES[shape.kind][2]
    c2, c2_out = 128 // bits, 16 // sheet.OUTPUTS[shape.kind_out][1]
    rows = shape.form == "row-major"
    layout = {
        "A": f"row-major [M][{shape.k}] {shape.kind}" if rows else f"[K/{c2}][M][{c2}] {shape.kind}",
        "B": f"[N/{group}][K/{run}][{group}][{run}] {shape.kind}",
        "C": f"row-major [M][{shape.n}]" if rows else f"[N/{c2_out}][M][{c2_out}] {shape.kind_out}",
    }
    words = sheet.program(shape).at(addresses).tolist()
    return {
        "id": f"{shape}",
        "op": "matmul",
        "dtype_in": shape.kind,
        "dtype_out": shape.kind_out,
        "M": shape.m,
        "K": shape.k,
        "N": shape.n,
        "layout": layout,
        "addresses": {role: hex(address) for role, address in addresses.items()},
        "tasks": [{"regcfg_amount": len(words) - 4, "words": [f"{word:016x}" for word in words]}],
    }


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cases_of_other_shapes_and_addresses_pass(data):
    kind, out = data.draw(st.sampled_from(sheet.PAIRS))
    group, run = sheet.TYPES[kind][3:]
    shape = sheet.Shape(
        kind,
        out,
        data.draw(st.integers(1, 80)),
        run * data.draw(st.integers(1, 10)),
        group * data.draw(st.integers(1, 4)),
        data.draw(st.sampled_from(sheet.FORMS)),
    )
    slots = data.draw(st.permutations([0x0000_0010, 0x4000_0000, 0xFF00_0000]))
    addresses = dict(zip(("input", "weight", "output"), slots, strict=True))
    outcome = golden.verify(our_case(shape, addresses), data.draw(st.integers(0, 99)))
    assert outcome.passed, outcome


def test_other_arithmetic_fails_the_tolerance():
    # k-sequential fp32 is beyond 3e-6 of the rms where K is large: the verification can tell.
    case = CASES["mtx_fp16_fp32_m128_k768_n768"]
    assert golden.verify(case).passed
    outcome = golden.verify(case, options=Options(float_sum=FloatSum.IN_ORDER))
    assert not outcome.passed
    assert outcome.error > golden.FP32_RMS


def test_a_byte_written_beside_the_result_fails():
    # fp16 results with gaps between their groups: without gaps, others' bytes are touched.
    case = copy.deepcopy(CASES["allbilly_fp16_fp16_m64_k128_n64"])
    words = case["tasks"][0]["words"]
    words[words.index("10010000004040c0")] = "10010000002040c0"
    outcome = golden.verify(case)
    assert not outcome.passed
    assert "bytes outside the result were written" in outcome.detail


def test_the_layouts_of_the_sheet():
    # Section 5.1's formulas, element by element.
    m, k = 5, 64
    a = golden_layout.feature_layout("[K/16][M][16] int8", "int8", m, k)
    assert (a.size, a.places[3, 37]) == (m * k, 37 // 16 * m * 16 + 3 * 16 + 37 % 16)
    b = golden_layout.kernel_layout("[N/16][K/32][16][32] fp16", "fp16", 48, 64)
    assert b.size == 2 * 48 * 64
    assert b.places[35, 40] == ((35 // 16) * 2 + 40 // 32) * 16 * 32 + 35 % 16 * 32 + 40 % 32
    padded = golden_layout.kernel_layout(
        "[N/16][K/32][16][32] fp16 with K padded to 160, N padded to 160", "fp16", 9, 96
    )
    assert padded.size == 2 * 160 * 160
    gapped = golden_layout.result_layout(
        "row pitch 128 elements; channel c at (c/16)*32 + c%16", "fp16", 3, 64
    )
    assert gapped.places[2, 17] == 2 * 128 + 32 + 1
    rows = golden_layout.feature_layout("row-major [M][100] fp16, zero padded", "fp16", 3, 96)
    assert (rows.size, rows.places[2, 5]) == (600, 205)
    nibbles = golden_layout.feature_layout("[K/32][M][32] int4, low nibble first", "int4", 2, 64)
    packed = golden_layout.encode(np.arange(128).reshape(2, 64) % 16 - 8.0, nibbles)
    assert packed.size == 64
    # The first byte: element 0 (-8) in the low nibble, element 1 (-7) in the high one.
    assert packed[0] == (-7 & 15) << 4 | (-8 & 15)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"op": "fft"}, "operation 'fft' is not known"),
        ({"dtype_in": "int7"}, "int7"),
        ({"M": "many"}, "cannot be read"),
        ({"layout": {"A": "spiral", "B": "", "C": ""}}, "layout 'spiral' is not known"),
        ({"addresses": {"input": "0x1000", "weight": "0x2000"}}, "no address of output"),
        ({"addresses": {"input": "0x1000", "weight": "0x1000", "output": "0x9000"}}, "overlap"),
        ({"tasks": []}, "no tasks"),
        ({"tasks": [{"words": ["nonsense"], "regcfg_amount": 1}]}, "cannot be read"),
        ({"tasks": [{"words": ["ffffffffffffffffff"], "regcfg_amount": 1}]}, "cannot be read"),
        ({"tasks": [{"words": ["0" * 16] * 4, "regcfg_amount": -9}]}, "a body of -9 words"),
        ({"M": 10**9}, "expected matrices of 1 to"),
        ({"M": -1}, "expected matrices of 1 to"),
    ],
)
def test_broken_cases_fail_with_a_reason(change, reason):
    outcome = golden.verify({**CASES["mtx_int8_int32_m64_k512_n256"], **change})
    assert not outcome.passed
    assert reason in outcome.detail


@pytest.mark.parametrize("content", ["", "[]", '{"cases": 3}', '{"cases": [1]}', "[" * 100000])
def test_broken_files_are_refused(tmp_path, content):
    path = tmp_path / "cases.json"
    path.write_text(content)
    with pytest.raises(NpuError):
        golden.load_cases(path)
