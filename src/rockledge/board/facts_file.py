"""A file of facts that were measured on a machine: what `rockledge bench --calibrate-board` writes.

JSON, with a version. Each fact has its value and unit, how it was measured, and the spread of its repeats;
beside them stands what the machine says of itself, without anything that names it or its owner.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from rockledge.board.boards import BOARDS, Board, board_with, find_chip_named
from rockledge.board.chip import Chip
from rockledge.board.cycles import STREAMED_ROWS, cycles_fact
from rockledge.board.facts import UNITS, Fact
from rockledge.board.reserves import RESERVE_FACTS
from rockledge.board.step_time import STEP_FACTS
from rockledge.errors import UsageError
from rockledge.regular_file import open_regular

KIND: Final = "rockledge board facts"
VERSION: Final = 1
WIDTHS: Final = (2, 3, 4, 8)
STREAMED: Final = (1, 2, STREAMED_ROWS)
"""Rows of activations for which weights that stream from memory are measured."""
MEASURED: Final = "measured"
"""The name of a board, and its chip, of which nothing is known besides what was measured."""
_AGAIN: Final = "make it again with rockledge bench --calibrate-board"
_MOST_BYTES: Final = 1 << 20
_LEAST_RAM, _MOST_RAM = 1 << 26, 1 << 50


@dataclass(frozen=True)
class Measured:
    """One fact. `value`: the median of `repeats`; `spread`: from their best to their upper quartile."""

    value: float
    unit: str
    how: str
    spread: tuple[float, float]
    repeats: int


@dataclass(frozen=True)
class Npu:
    """The NPU that was measured, through its driver. `virtual`: a stand-in, whose speed is that of an
    emulator; its facts are kept apart and no board takes them over."""

    driver: str
    version: str
    cores: int
    virtual: bool
    facts: Mapping[str, Measured] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredFacts:
    """What such a file holds. `machine`: what the system says of itself; `chip`: the name under which the
    facts of its chip are known here, "" where they are not."""

    program: str
    processor: str
    kernel: str
    threads: int
    ram_bytes: int
    chip: str
    facts: Mapping[str, Measured]
    npu: Npu | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def board(self) -> Board:
        """The board that these facts make: what is known of the chip, with what was measured in its place.
        Of a chip that is not known, what was measured alone, and what other software takes of memory; an NPU
        of which nothing else is known is left alone."""
        known = find_chip_named(self.chip)
        if known is None:
            chip = Chip(MEASURED, self.processor, (), range(self.threads), {})
            base = Board(MEASURED, self.ram_bytes, RESERVE_FACTS, chip, {})
        else:
            base = board_with(known, self.ram_bytes)
        facts = dict(self.facts)
        if self.npu is not None and not self.npu.virtual:
            facts |= self.npu.facts
        board = replace(base, facts={**base.facts, **_as_facts(facts)})
        return board if base.has_npu else board.without_npu()


def streamed_fact(bits: int, rows: int) -> str:
    """The name of the fact: cycles of all cores together for a weight that streams from memory and meets
    `rows` of int8 activations."""
    return f"cpu_streamed_cycles_per_weight_{bits}_bits_{rows}_rows"


@lru_cache(maxsize=1)
def known_units() -> Mapping[str, str]:
    """The unit of every fact that a board has or that is measured, by name."""
    units = {name: fact.unit for board in BOARDS.values() for name, fact in board.facts.items()}
    streamed = {streamed_fact(bits, rows): "cycles/weight" for bits in WIDTHS for rows in STREAMED}
    return {**units, **STEP_FACTS, **streamed, "cpu_read_bandwidth_4_cores": "B/s"}


def _as_facts(measured: Mapping[str, Measured]) -> dict[str, Fact]:
    """As a board has them. The formula of decode takes cycles of codes that stream in: from memory, by all
    cores, for one row and for as many as still stream; in a core's cache they are fewer."""
    found = {
        name: Fact(one.value, one.unit, f"this machine: {one.how}", "measured here", one.spread)
        for name, one in measured.items()
    }
    for bits in WIDTHS:
        one, many = (found.get(streamed_fact(bits, rows)) for rows in (1, STREAMED_ROWS))
        if one is None or many is None:
            continue
        found[cycles_fact(bits, 1)] = one
        found[cycles_fact(bits, 2)] = replace(
            one, value=_second(one.value, many.value), source=many.source, spread=_spread(one, many)
        )
    return found


def _spread(one: Fact, many: Fact) -> tuple[float, float] | None:
    if one.spread is None or many.spread is None:
        return None
    ends = [_second(first, last) for first, last in zip(one.spread, many.spread, strict=True)]
    return min(ends), max(ends)


def _second(one: float, many: float) -> float:
    """Of two rows, on the line through one row and `STREAMED_ROWS`."""
    return one + (many - one) / (STREAMED_ROWS - 1)


def text(facts: MeasuredFacts) -> str:
    """The file's text."""
    return json.dumps({"kind": KIND, "version": VERSION, **asdict(facts)}, indent=1) + "\n"


def read_facts(path: Path) -> MeasuredFacts:
    """The file at `path`. UsageError where there is none, and as `parse`."""
    try:
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be read ({reason}), expected a file of facts; {_AGAIN}") from None
    if len(content) > _MOST_BYTES:
        raise UsageError(
            f"{path} has more than {_MOST_BYTES} bytes, expected a file of facts, which is smaller; {_AGAIN}"
        )
    return parse(content, str(path))


def parse(content: bytes, name: str) -> MeasuredFacts:
    """What a file holds; `name` is for errors. UsageError says what is wrong: not JSON or another kind of
    file, from a newer version, without a key, or with a fact that cannot be true."""
    try:
        body = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is not JSON, expected a file of facts; {_AGAIN}") from None
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise UsageError(f'{name} has no "kind" of "{KIND}", expected a file of facts; {_AGAIN}')
    version = body.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UsageError(f"{name} has no version, expected {VERSION}; {_AGAIN}")
    if version > VERSION:
        raise UsageError(
            f"{name} is of version {version}, expected at most {VERSION}; update Rockledge to read it"
        )
    reader = _Reader(name)
    npu = body.get("npu")
    if npu is not None and not isinstance(npu, dict):
        raise reader.wrong("npu", npu, "an object or null")
    found = MeasuredFacts(
        program=reader.text(body, "program"),
        processor=reader.text(body, "processor"),
        kernel=reader.text(body, "kernel"),
        threads=reader.count(body, "threads", 1, 1024),
        ram_bytes=reader.count(body, "ram_bytes", _LEAST_RAM, _MOST_RAM),
        chip=reader.text(body, "chip"),
        facts=reader.facts(body),
        npu=None if npu is None else _npu(reader, npu),
        machine=reader.object(body, "machine"),
    )
    missing = [fact for fact in REQUIRED if fact not in found.facts]
    if missing:
        raise UsageError(f"{name} lacks the fact {missing[0]}; {_AGAIN}")
    return found


REQUIRED: Final = (
    "cpu_cores",
    "cpu_hz",
    "cpu_read_bandwidth",
    "cpu_prefill_macs_per_cycle",
    *(cycles_fact(bits, planes) for bits in WIDTHS for planes in (1, 2)),
    *(f"cpu_unpack_cycles_per_weight_{bits}_bits" for bits in WIDTHS),
    "cpu_norm_cycles",
    "cpu_quantise_cycles",
    "cpu_rope_cycles",
    "cpu_gate_cycles",
    "cpu_hadamard_cycles",
    "cpu_attention_cycles_per_score",
    "cpu_attention_cycles_per_score_mac",
    "cpu_attention_cycles_per_value_mac",
)
"""Facts without which nothing can be predicted."""


def _no_number(constant: str) -> float:
    raise ValueError(constant)


def _npu(reader: "_Reader", body: Mapping[str, Any]) -> Npu:
    virtual = body.get("virtual")
    if not isinstance(virtual, bool):
        raise reader.wrong("npu.virtual", virtual, "true or false")
    return Npu(
        driver=reader.text(body, "driver", "npu."),
        version=reader.text(body, "version", "npu."),
        cores=reader.count(body, "cores", 1, 1024, "npu."),
        virtual=virtual,
        facts=reader.facts(body, "npu.", possible=not virtual),
    )


class _Reader:
    """Values out of the file called `name`, with their types checked."""

    def __init__(self, name: str) -> None:
        self._name = name

    def wrong(self, key: str, value: object, expected: str) -> UsageError:
        return UsageError(f"{key} of {self._name} is {json.dumps(value)[:60]}, expected {expected}; {_AGAIN}")

    def _value(self, body: Mapping[str, Any], key: str, under: str) -> Any:
        if key not in body:
            raise UsageError(f"{self._name} lacks {under}{key}; {_AGAIN}")
        return body[key]

    def text(self, body: Mapping[str, Any], key: str, under: str = "") -> str:
        value = self._value(body, key, under)
        if not isinstance(value, str) or not value.isprintable():  # it is shown in terminals
            raise self.wrong(under + key, value, "printable text")
        return value

    def count(self, body: Mapping[str, Any], key: str, least: int, most: int, under: str = "") -> int:
        value = self._value(body, key, under)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(under + key, value, f"a whole number from {least} to {most}")
        return value

    def object(self, body: Mapping[str, Any], key: str, under: str = "") -> dict[str, Any]:
        value = self._value(body, key, under)
        if not isinstance(value, dict):
            raise self.wrong(under + key, value, "an object")
        return value

    def _number(self, body: Mapping[str, Any], key: str, under: str) -> float:
        value = self._value(body, key, under)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(under + key, value, "a number")
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def facts(
        self, body: Mapping[str, Any], under: str = "", *, possible: bool = True
    ) -> dict[str, Measured]:
        """Those under "facts"; where `possible`, each within what its unit can be."""
        found = {}
        for name, one in self.object(body, "facts", under).items():
            place = f"{under}facts.{json.dumps(name[:80])[1:-1]}"
            if not name.isprintable():
                raise UsageError(f"{self._name} has {place}, expected a printable name; {_AGAIN}")
            if not isinstance(one, dict):
                raise self.wrong(place, one, "an object")
            found[name] = self._fact(name, one, place, possible)
        return found

    def _fact(self, name: str, one: Mapping[str, Any], place: str, possible: bool) -> Measured:
        within = f"{place}."
        unit = self.text(one, "unit", within)
        known = known_units().get(name, unit)
        if unit != known:
            raise self.wrong(f"{within}unit", unit, known)
        if unit not in UNITS:
            raise self.wrong(f"{within}unit", unit, f"a unit such as {', '.join(list(UNITS)[:3])}")
        value = self._number(one, "value", within)
        pair = self._value(one, "spread", within)
        if not isinstance(pair, list) or len(pair) != 2:
            raise self.wrong(f"{within}spread", pair, "two numbers")
        low, high = (self._number({"spread": end}, "spread", within) for end in pair)
        least, most = (UNITS[unit].least, UNITS[unit].most) if possible else (0.0, UNITS[unit].most)
        for number in (value, low, high):
            if not least <= number <= most:
                raise UsageError(
                    f"{place} of {self._name} is {number:g} {unit}, expected {least:g} to {most:g} {unit}"
                )
        if not low <= value <= high:
            raise UsageError(
                f"{place} of {self._name} is {value:g} {unit}, expected a value inside its spread of "
                f"{low:g} to {high:g} {unit}"
            )
        repeats = self.count(one, "repeats", 1, 1_000_000, within)
        return Measured(value, unit, self.text(one, "how", within), (low, high), repeats)
