"""Runs inside the emulator: decode steps of several sequences, marked for the counting plugin.

Usage: python step_guest.py ARTIFACT PROMPT FEW MANY ROWS...

For each number of rows two phases, from 1 on: FEW and then MANY steps of so many sequences after a prompt of
PROMPT tokens each, with tokens drawn from all of them. What differs between the two is what steps cost;
phase 0 is everything else. Prints where the files of the process are mapped, as guest.py does.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.a76.mapped import mark, print_mapped
from rockledge.artifact import open_artifact
from rockledge.board.memory import PAGE_TOKENS, pages_of
from rockledge.runtime.drawing import Drawing
from rockledge.runtime.executor import Executor
from rockledge.runtime.program import build_program
from rockledge.runtime.sampling import Sampling

SETTINGS = Sampling(temperature=0.8, top_p=0.95, repetition_penalty=1.1)


def steps(executor: Executor, prompt: int, count: int, rows: int, vocab: int, phase: int) -> None:
    """Prompts are read before the phase begins."""
    pages = pages_of(prompt + count)
    draws = []
    for slot in range(rows):
        # Any ids do: what they are steers sums and nothing else.
        ids = np.array([(7919 * (i + 31 * slot) + 101) % vocab for i in range(prompt)], np.int32)
        executor.tables[:, slot, :pages] = np.arange(pages) + pages * slot
        executor.tokens[:prompt], executor.positions[:prompt] = ids, np.arange(prompt)
        executor.sequences[:prompt] = slot
        executor.wanted[0] = prompt - 1
        draws.append(Drawing(replace(SETTINGS, seed=slot), ids, most=count + 1, ends=()))
        executor.step(prompt, draws[-1:])
    executor.sequences[:rows] = executor.wanted[:rows] = np.arange(rows)
    mark(phase)
    for number in range(count):
        for row, one in enumerate(draws):
            executor.tokens[row] = one.take()
            executor.positions[row] = prompt + number
        executor.step(rows, draws)
    mark(0)


def main() -> None:
    path, *numbers = sys.argv[1:]
    prompt, few, many, *rows = map(int, numbers)
    plan = build_program(open_artifact(Path(path)))
    context = PAGE_TOKENS * pages_of(prompt + many) * max(rows)
    largest = max(prompt, *rows)
    executor = Executor(
        plan,
        max_rows=largest,
        context=context,
        pools=plan.pools(context, largest),
        threads=1,
        kernel="auto",
    )
    vocab = plan.config.vocab
    steps(executor, prompt, 2, max(rows), vocab, 0)  # what only the first steps pay
    for number, each in enumerate(rows):
        steps(executor, prompt, few, each, vocab, 2 * number + 1)
        steps(executor, prompt, many, each, vocab, 2 * number + 2)
    executor.close()
    print_mapped()


if __name__ == "__main__":
    main()
