"""Runs inside the emulator: runs prefill and decode, and marks for the counting plugin which is which.

Usage: python guest.py ARTIFACT SHORT LONG PROMPT FEW MANY

Phase 1 reads SHORT tokens and 2 reads LONG, one token drawn; 3 and 4 read PROMPT and write FEW and MANY. What
differs between two of them is what their difference in tokens costs; phases 0 and 5 are everything else.
Prints where the files of the process are mapped: [[first, last, offset, file], ...] as JSON.
"""

import ctypes
import json
import sys
from pathlib import Path

from rockledge.runtime.engine import Engine

MARK = 0x726B  # a "which" that getpriority does not know; count.c knows it


def main() -> None:
    artifact, *numbers = sys.argv[1:]
    short, long, prompt, few, many = map(int, numbers)
    library = ctypes.CDLL(None)
    with Engine.load(artifact, threads=1, ctx=max(long, prompt + many) + 1) as engine:

        def run(phase: int, tokens: int, drawn: int) -> None:
            # Any ids do: what they are steers sums and nothing else.
            ids = [(7919 * i + 101) % engine.config.vocab for i in range(tokens)]
            library.getpriority(MARK, phase)
            for _ in engine.generate(ids, max_tokens=drawn, ignore_eos=True):
                pass
            library.getpriority(MARK, 5)

        run(5, prompt, 2)  # what only the first request pays
        run(1, short, 1)
        run(2, long, 1)
        run(3, prompt, few)
        run(4, prompt, many)
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        words = line.split()
        if len(words) == 6 and "x" in words[1]:
            first, last = (int(at, 16) for at in words[0].split("-"))
            found.append((first, last, int(words[2], 16), words[5]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
