"""Files of measured facts: what is written is read again, and whatever is wrong is said in one sentence."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockledge.board.boards import find_board
from rockledge.board.cycles import cycles_fact
from rockledge.board.facts import UNITS
from rockledge.board.facts_file import (
    REQUIRED,
    VERSION,
    Measured,
    MeasuredFacts,
    Npu,
    parse,
    read_facts,
    streamed_fact,
    text,
)
from rockledge.errors import UsageError


def unit_of(name: str) -> str:
    known = find_board("rk3588-8gb").facts
    return known[name].unit if name in known else "cycles/weight"


def one(name: str, value: float | None = None) -> Measured:
    if value is None:
        known = find_board("rk3588-8gb").facts
        value = known[name].value if name in known else 0.5
    return Measured(value, unit_of(name), "as it was", (value, value), 5)


STREAMED = {streamed_fact(4, rows): one(streamed_fact(4, rows), 0.2 * rows) for rows in (1, 2, 4)}
FACTS = MeasuredFacts(
    "0.1.0", "a processor", "6.1.43", 4, 8 << 30, "rk3588", {name: one(name) for name in REQUIRED} | STREAMED
)
NPU = Npu("rknpu", "0.9.8", 3, False, {"npu_submit_seconds": one("npu_submit_seconds", 150e-6)})


def test_what_is_written_is_read_again() -> None:
    for facts in (FACTS, replace(FACTS, npu=NPU, machine={"policies": [{"governor": "ondemand"}]})):
        assert parse(text(facts).encode(), "f.json") == facts
    assert json.loads(text(FACTS))["version"] == VERSION


@given(st.sampled_from(sorted(UNITS)), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 99))
def test_every_possible_value_is_read_again(
    unit: str, first: float, second: float, third: float, repeats: int
) -> None:
    least, most = UNITS[unit].least, UNITS[unit].most
    low, value, high = sorted(min(least + share * (most - least), most) for share in (first, second, third))
    facts = replace(FACTS, facts={**FACTS.facts, "another": Measured(value, unit, "é", (low, high), repeats)})
    assert parse(text(facts).encode(), "f.json") == facts


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_facts_are_one_sentence(content: bytes) -> None:
    with pytest.raises(UsageError, match=r"expected a file of facts|kind"):
        parse(content, "f.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_other_value_in_any_place_is_one_sentence(data: st.DataObject) -> None:
    body = json.loads(text(replace(FACTS, npu=NPU)))
    place = body
    for _ in range(4):
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
        else:
            break
    place[key] = data.draw(JSON)
    said = "one sentence"
    try:
        assert parse(json.dumps(body).encode(), "f.json").board.value("cpu_cores") >= 1
    except UsageError as error:
        said = str(error)
    assert "\n" not in said
    assert not said.endswith(".")


def changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(text(FACTS)), **changes}).encode()


def with_fact(**changes: object) -> bytes:
    facts = json.loads(text(FACTS))["facts"]
    return changed(facts={**facts, "cpu_hz": {**facts["cpu_hz"], **changes}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON, expected a file of facts"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", 'no "kind" of "rockledge board facts"'),
        (changed(kind="report"), 'no "kind"'),
        (changed(version=VERSION + 1), f"is of version {VERSION + 1}, expected at most {VERSION}; update"),
        (changed(version="1"), "has no version"),
        (changed(version=True), "has no version"),
        (changed(processor="\x1b[31m"), 'processor of f.json is "\\u001b[31m", expected printable text'),
        (changed(kernel="6.1\n"), "kernel of f.json"),
        (changed(chip="\ud800"), "chip of f.json"),
        (changed(facts={"a\nb": {}}), r"f.json has facts.a\nb, expected a printable name"),
        (changed(threads=0), "threads of f.json is 0, expected a whole number from 1 to 1024"),
        (changed(ram_bytes=-1), "ram_bytes of f.json is -1, expected a whole number from 67108864"),
        (changed(facts=[]), "facts of f.json is [], expected an object"),
        (changed(facts={}), "lacks the fact cpu_cores"),
        (changed(npu="none"), "npu of f.json is \"none\", expected an object or null"),
        (changed(npu={"driver": "x"}), "npu.virtual of f.json is null, expected true or false"),
        (with_fact(value=-2.2e9, spread=[-2.2e9, -2.2e9]), "cpu_hz of f.json is -2.2e+09 Hz, expected 1e+07"),
        (with_fact(value=2.2, spread=[2.2, 2.2]), "cpu_hz of f.json is 2.2 Hz, expected 1e+07 to 1e+10 Hz"),
        (with_fact(value=2e9, spread=[2.1e9, 2.2e9]), "inside its spread of 2.1e+09 to 2.2e+09 Hz"),
        (with_fact(value="fast"), 'cpu_hz.value of f.json is "fast", expected a number'),
        (with_fact(value=True), "cpu_hz.value of f.json is true, expected a number"),
        (with_fact(value=10**400), "expected 1e+07 to 1e+10 Hz"),
        (with_fact(unit="GHz"), 'cpu_hz.unit of f.json is "GHz", expected Hz'),
        (with_fact(spread=[1]), "cpu_hz.spread of f.json is [1], expected two numbers"),
        (with_fact(repeats=0), "cpu_hz.repeats of f.json is 0, expected a whole number from 1"),
        (text(FACTS).replace("2200000000.0", "NaN").encode(), "is not JSON"),
        (text(FACTS).replace('"threads": 4,', "").encode(), "f.json lacks threads"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(content: bytes, said: str) -> None:
    with pytest.raises(UsageError) as found:
        parse(content, "f.json")
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_fact_that_every_prediction_needs_is_missed_by_name(name: str) -> None:
    facts = replace(FACTS, facts={other: one for other, one in FACTS.facts.items() if other != name})
    with pytest.raises(UsageError, match=f"lacks the fact {name};"):
        parse(text(facts).encode(), "f.json")


@pytest.mark.parametrize(
    "name, unit, expected", [("cpu_hz", "B/s", "Hz"), ("another", "GHz", "a unit such as")]
)
def test_units_that_are_not_those_of_a_fact_are_refused(name: str, unit: str, expected: str) -> None:
    facts = replace(FACTS, facts={**FACTS.facts, name: Measured(2e9, unit, "x", (2e9, 2e9), 1)})
    with pytest.raises(UsageError, match=f'{name}.unit of f.json is "{unit}", expected {expected}'):
        parse(text(facts).encode(), "f.json")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_facts(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_facts(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="cannot be read"):
        read_facts(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="has more than 1048576 bytes"):
        read_facts(tmp_path / "large")
    (tmp_path / "good").write_text(text(FACTS))
    assert read_facts(tmp_path / "good") == FACTS


def test_a_known_chip_keeps_what_was_not_measured() -> None:
    board = replace(FACTS, npu=NPU).board
    known = find_board("rk3588-8gb")
    assert (board.name, board.ram_bytes) == ("rk3588-8gb", 8 << 30)
    assert board.value("npu_submit_seconds") == 150e-6
    assert board.facts["npu_submit_seconds"].kind == "measured here"
    assert board.facts["npu_bus_bandwidth"] == known.facts["npu_bus_bandwidth"]
    assert board.chip.coolings == known.chip.coolings


def test_what_a_virtual_npu_takes_is_nobodys_fact() -> None:
    slow = replace(NPU, virtual=True, facts={"npu_submit_seconds": one("npu_submit_seconds", 1.0)})
    board = replace(FACTS, npu=slow).board
    assert board.facts["npu_submit_seconds"] == find_board("rk3588-8gb").facts["npu_submit_seconds"]
    emulated = Measured(1e-7, "MAC/cycle/core", "slower than anything", (1e-7, 1e-7), 1)
    virtual = replace(slow, facts={"npu_int8_macs_per_cycle": emulated})
    assert parse(text(replace(FACTS, npu=virtual)).encode(), "f").npu == virtual
    with pytest.raises(
        UsageError, match=r"npu_int8_macs_per_cycle of f is 1e-07 MAC/cycle/core, expected 0.1"
    ):
        parse(text(replace(FACTS, npu=replace(virtual, virtual=False))).encode(), "f")


def test_an_unknown_chip_has_what_was_measured_alone() -> None:
    board = replace(FACTS, chip="").board
    assert (board.name, board.chip.title, board.has_npu) == ("measured", "a processor", False)
    assert "cpu_decode_watts" not in board.facts
    assert board.value("cpu_hz") == FACTS.facts["cpu_hz"].value
    assert board.value("os_reserve") > 0


def test_decode_takes_what_streams_from_memory() -> None:
    """One row and four lie on the line that the formula draws through one and two."""
    board = FACTS.board
    first, second = (board.value(cycles_fact(4, rows)) for rows in (1, 2))
    assert first == pytest.approx(0.2)
    assert first + 3 * (second - first) == pytest.approx(0.8)
    assert board.value(cycles_fact(3, 1)) == FACTS.facts[cycles_fact(3, 1)].value
    assert math.isclose(FACTS.facts[cycles_fact(4, 1)].value, 24 / 256)


def test_the_npu_of_a_chip_that_is_not_known_is_left_alone() -> None:
    """Nobody knows how much memory it may have, nor its programs."""
    npu = replace(NPU, facts={**NPU.facts, "npu_cores": one("npu_cores")})
    unknown = replace(FACTS, chip="")
    for facts in (replace(unknown, npu=npu), replace(unknown, facts={**FACTS.facts, **npu.facts})):
        assert not facts.board.has_npu
    assert replace(FACTS, npu=npu).board.has_npu
