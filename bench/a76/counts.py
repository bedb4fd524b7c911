"""What the counting plugin wrote: instructions by phase, and by function where a file's names are known."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Blocks = Counter[int]
"""Instructions executed, by the address of their block."""


@dataclass(frozen=True)
class Mapped:
    """A file in the memory of the process: addresses `first` to `last` (not included) from `offset` on."""

    first: int
    last: int
    offset: int
    file: str


@dataclass(frozen=True)
class Names:
    """Function names of one library by the address they start at, in rising order."""

    starts: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, listing: str) -> "Names":
        """From the output of `nm -C -n`; other symbols, and the assembler's marks, are omitted."""
        found = re.findall(r"^([0-9a-f]+) [tTwW] ([^$].*)$", listing, re.MULTILINE)
        return cls(tuple(int(at, 16) for at, _ in found), tuple(short(name) for _, name in found))

    def at(self, address: int) -> str:
        """The function that `address` lies in; "?" before the first."""
        number = bisect_right(self.starts, address)
        return self.names[number - 1] if number else "?"


def short(name: str) -> str:
    """A demangled name without result type, arguments and namespace: "stream_row<4>", "Program::linear"."""
    name = name.removeprefix("void ").split("(")[0] or name
    return re.sub(r"^(rl|portable|neon|drawing)::", "", re.sub(r"^rl::", "", name)) or name


def read_phases(lines: Iterable[str]) -> dict[int, Blocks]:
    """The blocks of every phase; a phase that was entered several times is summed."""
    phases: dict[int, Blocks] = {}
    blocks: Blocks = Counter()
    for line in lines:
        words = line.split()
        if words[0] == "phase":
            blocks = phases.setdefault(int(words[1]), Counter())
        else:
            blocks[int(words[0], 16)] += int(words[1])
    return phases


def per_token(few: Blocks, many: Blocks, tokens: int) -> dict[int, float]:
    """Instructions a token by block: what `many` has more than `few`, for `tokens` more."""
    return {at: (many[at] - few[at]) / tokens for at in many.keys() | few.keys() if many[at] != few[at]}


def by_function(
    blocks: Mapping[int, float], maps: Sequence[Mapped], names: Mapping[str, Names]
) -> dict[str, float]:
    """Instructions by function where `names` knows the file, else by file; most first.

    The offset in a file is taken for the address that its names have, which holds for the first segment.
    """
    found: dict[str, float] = {}
    for address, count in blocks.items():
        place = next((m for m in maps if m.first <= address < m.last), None)
        if place is None:
            name = "?"
        else:
            file = place.file.rsplit("/", 1)[-1]
            known = names.get(file)
            name = file if known is None else known.at(address - place.first + place.offset)
        found[name] = found.get(name, 0.0) + count
    return dict(sorted(found.items(), key=lambda item: -item[1]))
