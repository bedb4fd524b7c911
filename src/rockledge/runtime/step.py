"""One native step: the rows of its shares laid out, run, and what came of them by sequence."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rockledge.runtime.drawing import Drawing, Given
from rockledge.runtime.executor import Executor
from rockledge.runtime.scheduler import Share
from rockledge.runtime.sequence import Sequence as Running

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StepResult:
    """What a step gave: its seconds, the scores of given tokens, and the states fp32 [hidden] of sequences
    that end with one. What was drawn is in the sequences' drawings."""

    seconds: float
    given: dict[Running, list[Given]]
    states: dict[Running, Float32]


def run_step(executor: Executor, shares: Sequence[Share], *, keeps_tables: bool, hidden: int) -> StepResult:
    """Runs the rows of `shares`, each with room in the cache; nobody is advanced. Raises NativeError.

    `keeps_tables`: the executor has seen these sequences before, so that only tables that changed are
    written. `hidden`: channels of a state.
    """
    start = time.perf_counter()
    rows, wanted = 0, 0
    draws: list[Drawing | Given] = []
    ends: list[Running] = []
    given: dict[Running, list[Given]] = {}
    for share in shares:
        sequence, first = share.sequence, share.sequence.length
        assert sequence.cached is not None
        if sequence.moved or not keeps_tables:
            sequence.cached.write_table(executor.tables[:, sequence.slot])
            sequence.moved = not keeps_tables
        executor.place(rows, sequence.slot, sequence.tokens[first : first + share.rows], first)
        if sequence.request.kind == "score":
            following = sequence.tokens[first + 1 : first + 1 + share.rows].tolist()
            given[sequence] = [Given(token, sequence.request.logprobs or 0) for token in following]
            executor.wanted[wanted : wanted + share.rows] = range(rows, rows + share.rows)
            draws += given[sequence]
            wanted += share.rows
        elif share.rows == sequence.pending:
            executor.wanted[wanted] = rows + share.rows - 1
            wanted += 1
            if sequence.drawing is None:
                ends.append(sequence)
            else:
                draws.append(sequence.drawing)
        rows += share.rows
    states = np.empty((len(ends), hidden), np.float32)
    executor.step(rows, draws, states if ends else None)
    return StepResult(time.perf_counter() - start, given, dict(zip(ends, states, strict=True)))
