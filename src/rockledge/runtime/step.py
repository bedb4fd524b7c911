"""One native step: the rows of its shares laid out, run, and what came of them by sequence."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.runtime.constraints.grammar import GrammarMatcher, Masks
from rockledge.runtime.drawing import Drawing, Given
from rockledge.runtime.executor import Executor
from rockledge.runtime.scheduler import Share
from rockledge.runtime.sequence import Sequence as Running

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StepResult:
    """What a step gave: its seconds, the scores of given tokens, and of sequences that make embeddings the
    states fp32 [tokens, hidden] that they want. What was drawn is in the sequences' drawings."""

    seconds: float
    given: dict[Running, list[Given]]
    states: dict[Running, Float32]


def run_step(
    executor: Executor,
    shares: Sequence[Share],
    *,
    keeps_tables: bool,
    hidden: int,
    fill: Callable[[list[GrammarMatcher]], Masks] | None = None,
) -> StepResult:
    """Runs the rows of `shares`, each with room in the cache; nobody is advanced. Raises NativeError.

    `keeps_tables`: the executor has seen these sequences before, so that only tables that changed are
    written. `hidden`: channels of a state. `fill`: makes masks in another thread.
    """
    start = time.perf_counter()
    rows, wanted = 0, 0
    draws: list[Drawing | Given] = []
    ends: list[tuple[Running, int]] = []  # and how many states each wants
    given: dict[Running, list[Given]] = {}
    unmasked: list[GrammarMatcher] = []
    for share in shares:
        sequence, first = share.sequence, share.sequence.length
        assert sequence.cached is not None
        if sequence.moved or not keeps_tables:
            sequence.cached.write_table(executor.tables[:, sequence.slot])
            sequence.moved = not keeps_tables
        executor.place(rows, sequence.slot, sequence.tokens[first : first + share.rows], first)
        if sequence.told < sequence.count:
            before = max(sequence.told - 1, first)  # the row before the first token that is scored
            following = sequence.tokens[before + 1 : first + 1 + share.rows].tolist()
            given[sequence] = [Given(token, sequence.request.logprobs or 0) for token in following]
            scored = rows + before - first
            executor.wanted[wanted : wanted + len(following)] = range(scored, scored + len(following))
            draws += given[sequence]
            wanted += len(following)
        if sequence.mean is not None:
            executor.wanted[wanted : wanted + share.rows] = range(rows, rows + share.rows)
            wanted += share.rows
            ends.append((sequence, share.rows))
        elif share.rows == sequence.pending and sequence.draws:
            executor.wanted[wanted] = rows + share.rows - 1
            wanted += 1
            if sequence.drawing is None:
                ends.append((sequence, 1))
            else:
                draws.append(sequence.drawing)
                if sequence.matcher is not None and sequence.matcher.stale:
                    unmasked.append(sequence.matcher)
        rows += share.rows
    states = np.empty((sum(count for _, count in ends), hidden), np.float32)
    masks = fill(unmasked) if unmasked and fill is not None else None
    try:
        executor.step(rows, draws, states if ends else None, None if masks is None else masks.finish)
    finally:
        if masks is not None:
            masks.abandon()  # nobody else may use the matchers before
    found, taken = {}, 0
    for sequence, count in ends:
        found[sequence] = states[taken : taken + count]
        taken += count
    return StepResult(time.perf_counter() - start, given, found)
