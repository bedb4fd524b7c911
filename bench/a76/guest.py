"""Runs inside the emulator: runs prefill and decode, and marks for the counting plugin which is which.

Usage: python guest.py ARTIFACT SHORT LONG PROMPT FEW MANY

Phase 1 reads SHORT tokens and 2 reads LONG, one token drawn; 3 and 4 read PROMPT and write FEW and MANY. What
differs between two of them is what their difference in tokens costs; phases 0 and 5 are everything else.
Prints where the files of the process are mapped: [[first, last, offset, file], ...] as JSON.
"""

import sys

from bench.a76.mapped import mark, print_mapped
from rockledge.runtime.engine import Engine


def main() -> None:
    artifact, *numbers = sys.argv[1:]
    short, long, prompt, few, many = map(int, numbers)
    with Engine.load(artifact, threads=1, ctx=max(long, prompt + many) + 1) as engine:

        def run(phase: int, tokens: int, drawn: int) -> None:
            # Any ids do: what they are steers sums and nothing else.
            ids = [(7919 * i + 101) % engine.config.vocab for i in range(tokens)]
            mark(phase)
            for _ in engine.generate(ids, max_tokens=drawn, ignore_eos=True):
                pass
            mark(5)

        run(5, prompt, 2)  # what only the first request pays
        run(1, short, 1)
        run(2, long, 1)
        run(3, prompt, few)
        run(4, prompt, many)
    print_mapped()


if __name__ == "__main__":
    main()
