"""Programs as streams of command words: build, place in memory, chain, and read back.

A program is a body of register writes and a trailer of four words: address of the next program (or
nothing), how much of it to fetch, a marker, and the enable word that starts the blocks. Addresses stay
symbolic (`Address`) until `at` is given a device address for each role, so the same program can be moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rockledge.errors import NpuError
from rockledge.npu import isa

TRAILER_WORDS: Final = 4
PROGRAM_ALIGNMENT: Final = 16
ADDRESS_LIMIT: Final = 1 << 32
PROGRAM_ROLE: Final = "program"


@dataclass(frozen=True)
class Address:
    """A device address that is not known yet: that of a buffer's role, plus `offset` bytes."""

    role: str
    offset: int = 0


@dataclass(frozen=True)
class Relocation:
    """Word `word` of a stream takes the address of `role` plus `offset` bytes as its value."""

    word: int
    role: str
    offset: int


@dataclass(frozen=True)
class Program:
    """A stream with its trailer; values named by a relocation are 0 in `words`.

    `starts` are the word indices where its programs begin: one, or several for a chain.
    """

    words: tuple[int, ...]
    relocations: tuple[Relocation, ...]
    starts: tuple[int, ...] = (0,)

    @property
    def body_words(self) -> tuple[int, ...]:
        """Words of every program without its trailer: the vendor driver's regcfg_amount."""
        return tuple(len(program.body) for program in parse(self.words))

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole stream, trailers and padding included."""
        return len(self.words) * isa.WORD_BYTES

    def at(self, addresses: Mapping[str, int]) -> NDArray[np.uint64]:
        """The words with every relocation resolved. `addresses` maps roles to device addresses in bytes.

        A chain needs the role "program" too: where the stream itself will lie. Raises NpuError for a
        missing role and for an address outside 32 bits.
        """
        words = np.array(self.words, np.uint64)
        for relocation in self.relocations:
            if relocation.role not in addresses:
                raise NpuError(f"the program needs the address of {relocation.role}, which was not given")
            address = addresses[relocation.role] + relocation.offset
            if not 0 <= address < ADDRESS_LIMIT:
                raise NpuError(f"{relocation.role} lies at {address:#x}, expected a 32-bit address")
            if relocation.role == PROGRAM_ROLE and address % PROGRAM_ALIGNMENT:
                raise NpuError(f"a program lies at {address:#x}, expected a multiple of {PROGRAM_ALIGNMENT}")
            words[relocation.word] |= np.uint64(address << 16)
        return words


@dataclass(frozen=True)
class Trailer:
    """The end of a program: the address of the next one (None: the last), how many pairs of words less
    one to fetch of it, and the enable bitmap.
    """

    next_address: int | None
    next_amount: int
    enable: int


@dataclass(frozen=True)
class Parsed:
    """One program of a stream: the index of its first word, its body and its trailer."""

    start: int
    body: tuple[int, ...]
    trailer: Trailer


def pairs(total_words: int) -> int:
    """What the PC's amount register holds for a program of that many words, trailer included."""
    return (total_words + 1) // 2 - 1


def build(writes: Iterable[tuple[str, int | Address]], enable: int) -> Program:
    """A program from (register name, value) in order, ended by the trailer of a last program.

    Raises NpuError for an unknown register and a value that does not fit 32 bits.
    """
    words: list[int] = []
    relocations: list[Relocation] = []
    for name, value in writes:
        if isinstance(value, Address):
            relocations.append(Relocation(len(words), value.role, value.offset))
            value = 0
        words.append(isa.write(name, value))
    return Program((*words, *_trailer(None, enable)), tuple(relocations))


def chain(programs: Sequence[Program]) -> Program:
    """One stream that runs the programs in order in one kick; links are relocations of role "program".

    Programs are placed one after the other at multiples of 16 bytes. Raises NpuError for none.
    """
    if not programs:
        raise NpuError("a chain needs at least one program")
    words: list[int] = []
    relocations: list[Relocation] = []
    starts: list[int] = []
    for program in programs:
        for start in program.starts:
            starts.append(len(words) + start)
        for relocation in program.relocations:
            if relocation.role != PROGRAM_ROLE:
                moved = Relocation(len(words) + relocation.word, relocation.role, relocation.offset)
                relocations.append(moved)
        words += program.words
        # An odd program is fetched one word beyond its end: that word must be nothing.
        words += [0] * (len(words) % 2)
    parsed = parse(words)
    for before, after in pairwise(parsed):
        at = before.start + len(before.body)
        amount = pairs(len(after.body) + TRAILER_WORDS)
        words[at : at + TRAILER_WORDS] = _trailer(amount, before.trailer.enable)
        relocations.append(Relocation(at, PROGRAM_ROLE, after.start * isa.WORD_BYTES))
    relocations.sort(key=lambda relocation: relocation.word)
    return Program(tuple(words), tuple(relocations), tuple(starts))


def words_of(data: bytes) -> tuple[int, ...]:
    """The command words of raw little-endian bytes. Raises NpuError when they are not whole words."""
    if len(data) % isa.WORD_BYTES:
        raise NpuError(f"a command stream has {len(data)} bytes, expected a multiple of {isa.WORD_BYTES}")
    return tuple(np.frombuffer(data, "<u8").tolist())


def parse(words: Sequence[int]) -> tuple[Parsed, ...]:
    """The programs of a stream, one after the other, each ended by its enable word.

    Padding words between programs belong to none. Raises NpuError for a stream without an enable word,
    for words after the last one, and for a trailer that is not one; it names the word.
    """
    programs: list[Parsed] = []
    start = 0
    for index, command in enumerate(words):
        target, value, offset = isa.split(command)
        if target == isa.ENABLE_TARGET and offset == isa.ENABLE_OFFSET:
            programs.append(_parse_one(words, start, index, value))
            start = index + 1
        elif start == index and programs and command == 0:
            start = index + 1
    if start < len(words):
        raise NpuError(f"word {start} begins a program without an enable word (target 0x0081, register 0x8)")
    if not programs:
        raise NpuError("a command stream is empty, expected at least one program")
    return tuple(programs)


def _parse_one(words: Sequence[int], start: int, enable_at: int, enable: int) -> Parsed:
    first = enable_at + 1 - TRAILER_WORDS
    if first < start:
        raise NpuError(
            f"word {enable_at} enables blocks, but the trailer of {TRAILER_WORDS} words does not fit "
            "after the program's start"
        )
    link, amount, marker = (isa.split(word) for word in words[first:enable_at])
    pc = isa.BLOCK_BY_NAME["PC"].target
    if marker[0] != isa.MARKER_TARGET:
        raise NpuError(f"word {enable_at - 1} has target {marker[0]:#06x}, expected the marker 0x0041")
    if (amount[0], amount[2]) != (pc, isa.register_named("PC_REGISTER_AMOUNTS").offset):
        raise NpuError(
            f"word {enable_at - 2} is not a write of PC_REGISTER_AMOUNTS, which a trailer has there"
        )
    next_address: int | None = None
    if (link[0], link[2]) == (pc, isa.register_named("PC_BASE_ADDRESS").offset):
        next_address = link[1]
    elif link[0] not in isa.PADDING_TARGETS:
        raise NpuError(
            f"word {first} has target {link[0]:#06x}, expected the next program's address or padding"
        )
    return Parsed(start, tuple(words[start:first]), Trailer(next_address, amount[1], enable))


def _trailer(next_amount: int | None, enable: int) -> tuple[int, int, int, int]:
    """The four last words; a link's address stays 0 for its relocation."""
    link = 0 if next_amount is None else isa.write("PC_BASE_ADDRESS", 0)
    return (
        link,
        isa.write("PC_REGISTER_AMOUNTS", next_amount or 0),
        isa.word(isa.MARKER_TARGET, 0, 0),
        isa.word(isa.ENABLE_TARGET, isa.ENABLE_OFFSET, enable),
    )
