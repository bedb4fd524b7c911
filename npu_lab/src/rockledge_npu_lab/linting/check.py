"""Suspicious things in a command stream: the registers of its programs, and how they fit together.

The stream is walked as the PC walks it: registers keep their values from one program to the next. Nothing is
executed; what is found here would be silently wrong, hang or depend on what ran before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rockledge.errors import NpuError
from rockledge.npu.isa import PADDING_TARGETS, register_of, split
from rockledge.npu.stream import PROGRAM_ALIGNMENT, TRAILER_WORDS, Parsed, pairs, parse
from rockledge_npu_lab.disassemble import blocks_of
from rockledge_npu_lab.linting.reads import needs
from rockledge_npu_lab.linting.rules import RULES
from rockledge_npu_lab.linting.sizes import SIZE_RULES
from rockledge_npu_lab.linting.state import Objection, State
from rockledge_npu_lab.linting.tables import Loaded

# What has to be as before for an operand in the convolution buffer to be the same [H: GRN].
_REUSED: Final = {"data": "CNA_FEATURE_DATA_ADDR", "weight": "CNA_DCOMP_ADDR0"}
_SAME_TILE: Final = ("CNA_CONV_CON1", "CNA_DATA_SIZE1")
_BANKS: Final = ("data_bank", "weight_bank")
WIDE: Final = 8192  # kernels of an fp16 program that must not be followed by int8 [H: HAP]


@dataclass(frozen=True, order=True)
class Finding:
    """Something suspicious: the index of the word, the register or what else it is about, and the reason."""

    word: int
    about: str
    reason: str


def lint(words: Sequence[int]) -> list[Finding]:
    """All findings of a stream, in the order of its words, each once."""
    try:
        programs = parse(words)
    except NpuError as error:
        return [Finding(0, "stream", str(error))]
    found: set[Finding] = set(_links(programs))
    values: dict[str, int] = {}
    written: dict[str, int] = {}
    tables = Loaded()
    before: State | None = None
    for program in programs:
        found.update(_body(program, values, written, tables))
        found.update(_program(program, values, written))
        found.update(
            Finding(written.get(about, program.start), about, why)
            for about, why in tables.objections(_state(program, values))
        )
        state = _state(program, values)
        if state.conv:
            found.update(
                Finding(written.get(about, 0), about, why) for about, why in _sequence(before, state)
            )
            before = _state(program, dict(values))
    return sorted(found)


def _state(program: Parsed, values: dict[str, int]) -> State:
    return State(values, frozenset(blocks_of(program.trailer.enable)))


def _sequence(before: State | None, state: State) -> Iterator[Objection]:
    """What one matmul may not do after the one before it in the same kick, None for the first."""
    for operand, register in _REUSED.items():
        if not state.field("CNA_CBUF_CON0", f"{operand}_reuse"):
            continue
        if before is None:
            yield "CNA_CBUF_CON0", f"{operand}_reuse in the first matmul of a kick: there is nothing to reuse"
        elif any(before.values.get(name) != state.values.get(name) for name in (register, *_SAME_TILE)):
            yield "CNA_CBUF_CON0", f"{operand}_reuse, but the matmul before read something else"
        elif any(before.field("CNA_CBUF_CON0", f) != state.field("CNA_CBUF_CON0", f) for f in _BANKS):
            yield "CNA_CBUF_CON0", f"{operand}_reuse, but the banks are not those of the matmul before"
    wide = before is not None and before.type_name == "fp16" and before.kernels >= WIDE
    if wide and state.type_name == "int8":
        yield "CNA_CONV_CON1", f"int8 after fp16 with {WIDE} kernels or more: such a pair timed out"


def _body(
    program: Parsed, values: dict[str, int], written: dict[str, int], tables: Loaded
) -> Iterator[Finding]:
    """Applies the writes of one program, and reports words that are not writes."""
    for index, command in enumerate(program.body, program.start):
        target, value, offset = split(command)
        register = register_of(target, offset)
        if register is not None:
            values[register.name], written[register.name] = value, index
            yield from (Finding(index, about, why) for about, why in tables.write(register.name, value))
        elif target not in PADDING_TARGETS:
            yield Finding(
                index,
                f"{target:04x}:{offset:04x}",
                "no known register; what the PC does with it is not known",
            )


def _program(program: Parsed, values: dict[str, int], written: dict[str, int]) -> Iterator[Finding]:
    end = program.start + len(program.body) + TRAILER_WORDS - 1
    state = _state(program, values)
    if not state.enabled:
        yield Finding(end, "enable", "no block is started; the job waits for an interrupt that never comes")
    for rule in (*RULES, *SIZE_RULES):
        for about, reason in rule(state):
            yield Finding(written.get(about, end), about, reason)
    for name in needs(state):
        if name not in written:
            yield Finding(end, name, "never written in this stream: it keeps whatever ran before")
        elif written[name] < program.start:
            yield Finding(end, name, f"stale: it keeps what an earlier program wrote in word {written[name]}")


def _links(programs: Sequence[Parsed]) -> Iterator[Finding]:
    """Every program has to point to the next one itself: placement alone is not followed [H]."""
    for before, after in pairwise(programs):
        at = before.start + len(before.body)
        wanted = pairs(len(after.body) + TRAILER_WORDS)
        if before.trailer.next_address is None:
            yield Finding(
                at,
                "link",
                f"no link to the program at word {after.start}: unless submitted alone it never runs",
            )
        elif before.trailer.next_amount < wanted:
            yield Finding(
                at + 1,
                "link",
                f"fetches {before.trailer.next_amount} pairs less one of the next program, not {wanted}: its "
                "enable word is never reached",
            )
    last = programs[-1]
    if last.trailer.next_address is not None:
        yield Finding(last.start + len(last.body), "link", "the last program links to one that is not here")
    for program in programs:
        link = program.trailer.next_address
        if link is not None and link % PROGRAM_ALIGNMENT:
            at = program.start + len(program.body)
            about = f"the next program is at {link:#x}, expected a multiple of {PROGRAM_ALIGNMENT}"
            yield Finding(at, "link", about)
