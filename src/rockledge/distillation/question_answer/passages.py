"""A document cut into passages that a teacher can read at once: at headings, else paragraphs, else lines.

A passage begins with its heading where one is near, and knows the headings above it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rockledge.distillation.documents import Document

HEADING_TOKENS = 64  # most of the headings above a passage
_LEAST_WORDS = 16  # fewer say too little to ask about
_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_FENCE = ("```", "~~~")
# Where a block that is too long is cut, the first that helps.
_CUTS = (re.compile(r"\n"), re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])"), re.compile(r"\s+"))

Tokens = Callable[[str], int]
"""How many tokens a text has."""


@dataclass(frozen=True)
class Passage:
    """A part of the document of that number. `heading` is the title and the headings it stands under."""

    document: int
    heading: str
    text: str


def passages(number: int, document: Document, tokens: Tokens, most: int) -> list[Passage]:
    """The passages of a document, each of at most `most` tokens and at least a few words."""
    found: list[Passage] = []
    path: list[tuple[int, str]] = []
    for parts in _grouped(document.text, tokens, most):
        above = [text for _, text in path]
        text = "\n\n".join(parts).strip()
        heading = _heading([document.title, *above], tokens)
        if len(re.findall(r"\w+", text)) >= _LEAST_WORDS:
            found.append(Passage(number, heading, text))
        for part in parts:
            if heading_of := _HEADING.fullmatch(part):
                level = len(heading_of[1])
                path = [*(one for one in path if one[0] < level), (level, heading_of[2].strip())]
    return found


def _heading(above: Sequence[str], tokens: Tokens) -> str:
    """The headings that a passage stands under, as many of the nearest as have room."""
    names = list(dict.fromkeys(filter(None, above)))
    while len(names) > 1 and tokens(" > ".join(names)) > HEADING_TOKENS:
        del names[0]
    heading = " > ".join(names)
    while tokens(heading) > HEADING_TOKENS:
        heading = heading[: len(heading) * 3 // 4]
    return heading


def _grouped(text: str, tokens: Tokens, most: int) -> Iterator[list[str]]:
    """Runs of blocks that fit; a heading begins a new one where half of the room is taken."""
    run: list[str] = []
    used = 0
    for block in _blocks(text):
        for part in _fitting(block, tokens, most):
            size = tokens(part) + 2  # and what joins it to the next
            begins = _HEADING.fullmatch(part) is not None and used >= most // 2
            if run and (used + size > most or begins):
                last = len(run)
                while last > 1 and _HEADING.fullmatch(run[last - 1]):
                    last -= 1  # headings stay with what follows them
                yield run[:last]
                run = run[last:]
                used = sum(tokens(one) + 2 for one in run)
                if used + size > most:
                    run, used = [], 0
            run.append(part)
            used += size
    if run:
        yield run


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, headings, and code between its fences as one block each."""
    block: list[str] = []
    fence = ""
    for line in text.split("\n"):
        opening = line.lstrip()[:3]
        if fence:
            block.append(line)
            if opening == fence:
                fence = ""
        elif opening in _FENCE:
            block.append(line)
            fence = opening
        elif _HEADING.fullmatch(line.strip()) or not line.strip():
            if block:
                yield "\n".join(block)
            block = []
            if line.strip():
                yield line.strip()
        else:
            block.append(line)
    if block:
        yield "\n".join(block)


def _fitting(block: str, tokens: Tokens, most: int, cuts: Sequence[re.Pattern[str]] = _CUTS) -> list[str]:
    """The block in parts of at most `most` tokens."""
    room = most - 2
    if tokens(block) <= room:
        return [block]
    if not cuts:  # one word without end
        half = len(block) // 2
        if not half:
            return [block]
        return [*_fitting(block[:half], tokens, most, ()), *_fitting(block[half:], tokens, most, ())]
    joint = "\n" if cuts[0] is _CUTS[0] else " "
    found: list[str] = []
    run: list[str] = []
    used = 0
    for piece in filter(None, cuts[0].split(block)):
        size = tokens(piece) + 1
        if size > room:
            found += [joint.join(run)] if run else []
            found += _fitting(piece, tokens, most, cuts[1:])
            run, used = [], 0
            continue
        if used + size > room:
            found.append(joint.join(run))
            run, used = [], 0
        run.append(piece)
        used += size
    return [*found, joint.join(run)] if run else found
