"""Logits of our own, drawn from as the last part of a step: a program that only hands its rows on."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tests.native.one_op import NO_CACHE, float_buffer, step_of

from rockledge.runtime import native
from rockledge.runtime.drawing import Drawing, Given


@lru_cache(maxsize=8)
def handing_on(rows: int, vocab: int, threads: int = 1, kernel: str = "auto") -> native.Program:
    """Step logits are the rows of buffer 0, fp32 [rows, vocab]."""
    op = native.Op(native.OpCode.GATHER, (0,), (native.STEP_LOGITS,))
    shape = native.Shape(max_rows=rows, **NO_CACHE, logit_rows=rows)
    return native.Program([op], [], [float_buffer(vocab, 0)], shape, threads=threads, kernel=kernel)


def draw(
    logits: NDArray[np.float32], draws: Sequence[Drawing | Given], threads: int = 1, kernel: str = "auto"
) -> None:
    """One step that draws from logits fp32 [rows, vocab], or scores them."""
    rows, vocab = logits.shape
    program = handing_on(rows, vocab, threads, kernel)
    program.buffer(0)[:] = logits
    step = step_of(rows, logit_rows=np.arange(rows, dtype=np.int32))
    program.run(step, draws=[each.record for each in draws])
