"""The look-up of the elementwise stage, against its description in plain arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.npu_lab import sheet
from tests.npu_lab.emulation.running import Bench, bench_for, taken
from tests.npu_lab.sheet_lut import MUL, STEP, program, sigmoid_tables

from rockledge.npu import isa
from rockledge.npu.stream import Address, build
from rockledge_npu_lab.emulation.faults import StreamError
from rockledge_npu_lab.emulation.options import LutRounding, Options, Report

GOLDEN = json.loads((Path(__file__).parents[2] / "npu" / "regcmd_golden.json").read_text())["cases"]


def look_up(x, tables=None, changes=None, options=None):
    """fp16 results, float64, and the flags, of fp16 inputs (a multiple of 8)."""
    x = np.asarray(x, np.float16)
    bench = Bench(
        {"input": x.view(np.uint8), "output": np.zeros(2 * len(x), np.uint8)}, options=options or Options()
    )
    tables = sigmoid_tables() if tables is None else tables
    done = bench.kick(program(tables, len(x) // 8, changes))
    return bench.buffers["output"].view(np.float16).astype(np.float64), done.flags


def expected(x, tables, rounding=np.floor):
    """The description of 6.4 element by element."""
    found = []
    for value in np.asarray(x, np.float16).astype(np.float64):
        index = float(np.float32(value * MUL))
        if index < 0:
            place = (index + 512 * STEP) / STEP
            if place < 0:
                q = float(np.floor(tables[0][0] + (index + 512 * STEP) * 23107 / 2**22))
                found.append(np.float16((max(q, -32768) + 1) / 32768))
                continue
            table = tables[0]
        else:
            place, table = index / STEP, tables[1]
        i = min(int(place), 511)
        frac = min(place, 512) - i
        q = table[i] + rounding((table[i + 1] - table[i]) * frac)
        found.append(np.float16(np.float32(q + 1) / 32768))
    return np.array(found, np.float64)


X = np.linspace(-9, 9, 1000).astype(np.float16)


@pytest.mark.parametrize(
    ("how", "rounding"), [(LutRounding.FLOOR, np.floor), (LutRounding.TIES_EVEN, np.rint)]
)
def test_interpolation(how, rounding):
    # A steep table, so that the rounding of the fraction reaches the fp16 result.
    tables = np.stack([np.arange(513) * 7 - 3600, np.arange(513) * 3 + 1])
    found, flags = look_up(X, tables, options=Options(lut_rounding=how))
    inside = np.abs(X.astype(np.float64)) < 6.3
    np.testing.assert_array_equal(found[inside], expected(X, tables, rounding)[inside])
    assert flags == ()


def test_the_sigmoid_inside_and_outside_its_tables():
    found, flags = look_up(X)
    np.testing.assert_array_equal(found, expected(X, sigmoid_tables()))
    exact = 1 / (1 + np.exp(-X.astype(np.float64)))
    inside = np.abs(X.astype(np.float64)) <= 6.3
    # The sheet: 0.0003 inside, 0.0017 up to 8.
    assert np.abs(found - exact)[inside].max() <= 0.0003
    assert np.abs(found - exact)[np.abs(X.astype(np.float64)) <= 8].max() <= 0.0017
    assert flags == ()


def test_far_outside_the_slope_and_the_last_entry_count():
    found, _ = look_up([-20, -65504, 20, 65504, 0, 0, 0, 0])
    assert found[0] == pytest.approx(-0.004, abs=3e-4)
    assert found[1] == pytest.approx(-1, abs=1e-4)
    assert found[2] == found[3] == pytest.approx(0.99805, abs=5e-4)


def test_our_words_are_the_golden_ones():
    case = next(case for case in GOLDEN if case["id"] == "gor_lut_sigmoid_n1024")
    words = program(sigmoid_tables(), 128).at({"input": 0x01000000, "output": 0x03000000}).tolist()
    golden = [int(word, 16) for word in case["tasks"][0]["words"]]

    def last(stream: list[int]) -> dict[tuple[int, int], int]:
        return {(w >> 48, w & 0xFFFF): w >> 16 & 0xFFFFFFFF for w in stream if w >> 16 & 0xFFFFFFFF}

    # Arbitration weights and the conversion of an operand that is not there have no effect.
    free = {(0x2001, 0x5068), (0x1001, 0x4078)}
    assert {key: x for key, x in last(golden).items() if key not in free} == last(words)
    entries = [w for w in golden if w & 0xFFFF == 0x4104]
    assert entries == [w for w in words if w & 0xFFFF == 0x4104]


def test_without_the_write_bit_data_words_are_no_entries():
    # Product programs write 0 to both: the tables of an earlier program must stay.
    changes = {"DPU_LUT_ACCESS_CFG": 0, "DPU_LUT_ACCESS_DATA": 0}
    found, _ = look_up(X, changes=changes)
    np.testing.assert_array_equal(found, expected(X, sigmoid_tables()))


def test_tables_outlive_their_program():
    x = X.copy()
    bench = Bench({"input": x.view(np.uint8), "output": np.zeros(2 * len(x), np.uint8)})
    bench.kick(program(sigmoid_tables(), len(x) // 8))
    bench.buffers["output"][:] = 0
    bench.kick(program(sigmoid_tables()[:0], len(x) // 8))
    found = bench.buffers["output"].view(np.float16).astype(np.float64)
    np.testing.assert_array_equal(found, expected(x, sigmoid_tables()))


@pytest.mark.parametrize(
    ("change", "rule"),
    [((1, 5, 0), "lut-zero"), ((0, 100, None), "lut-flat")],
)
def test_known_faults_are_flagged(change, rule):
    tables = sigmoid_tables()
    table, entry, value = change
    if value is None:
        tables[table, entry : entry + 3] = tables[table, entry]
    else:
        tables[table, entry] = value
    assert [flag.rule.name for flag in look_up(X, tables)[1]] == [rule]
    assert look_up(X, tables, options=Options(lut_faults=Report.IGNORE))[1] == ()


def test_tables_behind_a_product():
    # The fused form: a product with the identity, then the table; one author met a time-out with fp16 output.
    shape = sheet.Shape("fp16", "fp16", 4, 32, 32)
    x = np.random.default_rng(3).uniform(-6, 6, (4, 32)).astype(np.float16).astype(np.float64)
    bench = bench_for(shape, x, np.eye(32))
    tables = [("DPU_LUT_ACCESS_CFG", 0x20000), ("DPU_LUT_ACCESS_CFG", 0x30000)]
    writes: list[tuple[str, int | Address]] = []
    for (name, value), entries in zip(tables, sigmoid_tables(), strict=True):
        writes += [(name, value), *(("DPU_LUT_ACCESS_DATA", int(entry)) for entry in entries)]
    stage = ("BN", "EW_CFG", "OUT_CVT", "LUT_CFG", "LUT_INFO", "LUT_LE", "LUT_LO")
    words = program(sigmoid_tables()[:0], 1).words[:-4]
    for word in words:
        register = isa.register_of(word >> 48, word & 0xFFFF)
        if register.name.startswith(tuple(f"DPU_{part}" for part in stage)):
            writes.append((register.name, word >> 16 & 0xFFFFFFFF))
    done = bench.kick(build([*sheet.writes(shape), *writes], 0x0D))
    found = taken(bench.buffers["output"], "fp16", sheet.output_places(shape))
    np.testing.assert_array_equal(found, expected(x.ravel(), sigmoid_tables()).reshape(4, 32))
    assert [flag.rule.name for flag in done.flags] == ["lut-fp16"]


def test_a_negative_offset_is_flagged():
    _, flags = look_up(X, changes={"DPU_OUT_CVT_OFFSET": 0xFFFFFFFF})
    assert [flag.rule.name for flag in flags] == ["lut-near-zero"]


def test_wide_passes_are_flagged():
    _, flags = look_up(np.zeros(8 * 4097))
    assert [flag.rule.name for flag in flags] == ["field-limit"]


def test_unknown_modes_and_entries_behind_the_last_are_refused():
    with pytest.raises(StreamError, match="DPU_LUT_CFG: expected 0x68"):
        look_up(X, changes={"DPU_LUT_CFG": 0})
    longer = np.concatenate([sigmoid_tables(), np.ones((2, 1), np.int64)], axis=1)
    with pytest.raises(StreamError, match="word 516, DPU_LUT_ACCESS_DATA: entry 513 of a table of 513"):
        look_up(X, longer)
