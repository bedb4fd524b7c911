"""A stream as people read it: every word with its fields, and after each what is suspicious about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rockledge.errors import NpuError
from rockledge.npu.stream import parse
from rockledge_npu_lab.disassemble import COMMENT, blocks_of, describe
from rockledge_npu_lab.linting.check import Finding

_TEXT_WIDTH: Final = 64


def listing(words: Sequence[int], findings: Sequence[Finding]) -> str:
    """The whole listing; all but the instructions is comment, so `disassemble.assemble` reads it back."""
    heads = _program_heads(words)
    about: dict[int, list[Finding]] = {}
    for finding in findings:
        about.setdefault(finding.word, []).append(finding)
    lines = []
    for index, command in enumerate(words):
        if index in heads:
            lines.append(f"{COMMENT} {heads[index]}")
        lines.append(f"{describe(command):{_TEXT_WIDTH}} {COMMENT} {index:5d} {command:016x}")
        lines += [f"{COMMENT}   ^ suspicious: {f.about}: {f.reason}" for f in about.get(index, ())]
    return "\n".join(lines)


def _program_heads(words: Sequence[int]) -> dict[int, str]:
    """The line above the first word of each program; nothing for a stream that cannot be parsed."""
    return dict(_heads(words))


def _heads(words: Sequence[int]) -> Iterator[tuple[int, str]]:
    try:
        programs = parse(words)
    except NpuError:
        return
    for number, program in enumerate(programs):
        blocks = " ".join(blocks_of(program.trailer.enable)) or "nothing"
        yield (
            program.start,
            f"program {number}: {len(program.body)} words and a trailer, starts {blocks}",
        )
