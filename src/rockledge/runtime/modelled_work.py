"""A model on a board as the numbers that the ladder of settings is computed from (`board/levers.py`)."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from rockledge.artifact import Artifact
from rockledge.board.boards import Board
from rockledge.board.levers import PromptParts, Work
from rockledge.board.memory import kv_bytes
from rockledge.board.prefill import BESIDE, BUS, NPU, SYNC
from rockledge.model.block import decoder
from rockledge.model.config import ModelConfig
from rockledge.npu.programs.steps import STEP_ROWS
from rockledge.runtime.offload.prompt_time import ATTENTION, HEAD, OTHER_CPU, PromptTimes
from rockledge.runtime.step_budget import SHARE

PROMPT_TOKENS: Final = STEP_ROWS[-1]
"""Of the prompt whose parts stand for all."""
CONTEXT_TOKENS: Final = 1024
"""That answers are taken to follow: how warm a chip gets hardly depends on it."""


def bands_of(artifact: Artifact) -> list[tuple[int, int, int]]:
    """(bits, rows, cols) of every matrix that a token multiplies with."""
    tree = decoder(artifact.config)
    return [
        (band.bits, band.rows, spec.cols)
        for name, spec in artifact.linears.items()
        if not (name == tree.embed.role and tree.gathered)
        for band in spec.bands
    ]


def work_of(
    board: Board,
    config: ModelConfig,
    bands: Iterable[tuple[int, int, int]],
    *,
    context: int,
    threads: int,
    sequences: int,
    npu: bool,
    npu_clocks: Iterable[float] = (),
) -> Work:
    """`bands`: (bits, rows, cols) of all matrices that a token multiplies with. `context`: tokens of cache;
    `npu`: whether prompts go there, `npu_clocks`: that can be set. Raises BudgetError where an NPU's plan
    does not fit into the board."""
    bands = tuple(bands)
    weights = sum(rows * cols for _, rows, cols in bands)
    mean = sum(bits * rows * cols for bits, rows, cols in bands) / weights
    width = min((2, 3, 4, 8), key=lambda bits: abs(bits - mean))
    times = PromptTimes(
        board if npu else board.without_npu(), config, width, context=context, steps=(PROMPT_TOKENS,)
    )
    time = times.prompt(PROMPT_TOKENS)
    whole = times.plan is not None
    parts = PromptParts(
        PROMPT_TOKENS,
        board.value("cpu_hz"),
        npu=time.alone[NPU] if whole else 0.0,
        bus=time.alone[BUS] if whole else 0.0,
        beside=time.alone[BESIDE] if whole else 0.0,
        waited=time.elapsed[SYNC] + time.elapsed[HEAD],
        cpu=time.elapsed[ATTENTION] + time.elapsed[OTHER_CPU],
    )
    return Work(
        board,
        tuple(Counter(bands).items()),
        kv_bytes(config, CONTEXT_TOKENS),
        parts,
        threads=threads,
        sequences=sequences,
        npu_hz=board.value("npu_hz") if whole else 0.0,
        prompt_time=1 - 1 / SHARE,
        npu_clocks=tuple(npu_clocks) if whole else (),
    )
