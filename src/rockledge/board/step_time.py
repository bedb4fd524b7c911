"""The time of a step of decode on a board whose fixed costs were measured; everything is modelled.

    a step = its bands (board/time.py)
             + every linear's outputs for each of its rows
             + shared operations x beginning and ending one in all threads
             + attention by all cores, or its keys and values over the bandwidth
             + norms, gates and quantisation: by one core for few rows, by all for many
             + what a step and each of its sequences cost besides that, and drawing a token of each

Nobody has published the fixed costs of a board, so no board has these facts until
`rockledge bench --calibrate-board` has measured them.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from math import ceil
from typing import Final, Literal

from rockledge.board.boards import Board
from rockledge.board.memory import DecoderShape, kv_bytes
from rockledge.board.prefill import between_linears
from rockledge.board.time import DecodePrediction, predict_decode

OPERATION: Final = "cpu_operation_seconds"
STEP: Final = "cpu_step_seconds"
SEQUENCE: Final = "cpu_sequence_seconds"
DRAW: Final = "cpu_draw_cycles"
DECODE_SCORE: Final = "cpu_decode_attention_cycles_per_score"
DECODE_MAC: Final = "cpu_decode_attention_cycles_per_mac"
OUTPUT: Final = "cpu_output_cycles"
PROMPT_OUTPUT: Final = "cpu_prefill_output_cycles"
STEP_FACTS: Final = {
    OPERATION: "s",
    OUTPUT: "cycles/element",
    PROMPT_OUTPUT: "cycles/element",
    STEP: "s",
    SEQUENCE: "s",
    DRAW: "cycles/element",
    DECODE_SCORE: "cycles/score",
    DECODE_MAC: "cycles/MAC",
}
"""Their units: of an operation, an output of a linear for a row of decode and of a prompt, a step, each of
its sequences, a logit that one core draws from, and in decode a query that meets a position and the products
of that."""
SHARED_OPERATIONS: Final = 5
"""Of a layer in decode: q|k|v, attention, o, gate|up, down."""
ROW_FLOATS_ALONE: Final = 4096
"""Below so many floats the core does not share such an operation (kRowFloatsAlone of native/executor.cpp)."""
PROMPT_OPERATIONS: Final = 10
"""Of a layer in prefill: those, two norms, the rotation of queries and keys, two quantisations."""


def has_step_facts(board: Board) -> bool:
    """Whether the fixed costs of a step were measured on it."""
    return all(fact in board.facts for fact in STEP_FACTS)


def step_seconds(
    board: Board,
    shape: DecoderShape,
    bands: Iterable[tuple[int, int, int]],
    *,
    sequences: int,
    after: int,
    hadamards: Collection[str] = ("ffn.down",),
    norms: Literal["before", "after", "both"] = "before",
) -> float:
    """A step that writes a token of each of `sequences`, each after `after` others. `bands`: (bits, rows,
    cols) of every matrix; `hadamards` and `norms` as for `between_linears`. KeyError where the board lacks
    `STEP_FACTS`."""
    bands = tuple(bands)
    seconds = predict_decode(bands, board=board, sequences=sequences).ms_per_token / 1e3
    cores = board.value("cpu_cores")
    alone = sequences == 1 or sequences * shape.hidden < ROW_FLOATS_ALONE
    for window, layers in Counter(shape.windows or (0,) * shape.layers).items():
        between = between_linears(
            board, shape, sequences, after, hadamards=hadamards, norms=norms, window=window, cached=True
        )
        seen = min(window or after + 1, after + 1)
        seconds += layers * (
            sequences * _attention_seconds(board, shape, seen) + between.other * (cores if alone else 1.0)
        )
    outputs = sum(rows for _, rows, _ in bands)
    seconds += sequences * outputs * board.value(OUTPUT) / (cores * board.value("cpu_hz"))
    shared = SHARED_OPERATIONS * shape.layers + (not shape.headless)
    seconds += shared * board.value(OPERATION) + board.value(STEP) + sequences * board.value(SEQUENCE)
    return seconds + _draw_seconds(board, shape, sequences)


def _draw_seconds(board: Board, shape: DecoderShape, sequences: int) -> float:
    """Of the tokens of all sequences: cores draw beside each other, one sequence each."""
    if shape.headless:
        return 0.0
    rounds = ceil(sequences / board.value("cpu_cores"))
    return rounds * shape.vocab * board.value(DRAW) / board.value("cpu_hz")


def _attention_seconds(board: Board, shape: DecoderShape, seen: int) -> float:
    """Of one layer for one query in every head that meets `seen` positions: the slower of bus and cores."""
    each = board.value(DECODE_SCORE) + shape.head_dim * board.value(DECODE_MAC)
    cycles = shape.heads * seen * each
    moved = kv_bytes(shape, seen) / shape.layers
    return max(
        cycles / (board.value("cpu_cores") * board.value("cpu_hz")), moved / board.value("cpu_read_bandwidth")
    )


def with_fixed_costs(
    found: DecodePrediction,
    board: Board,
    shape: DecoderShape,
    bands: Iterable[tuple[int, int, int]],
    *,
    sequences: int,
    after: int,
    hadamards: Collection[str],
    norms: Literal["before", "after", "both"],
) -> DecodePrediction:
    """The same prediction with everything that was measured of a step, on a board that has it."""
    if not has_step_facts(board):
        return found
    seconds = step_seconds(
        board, shape, bands, sequences=sequences, after=after, hadamards=hadamards, norms=norms
    )
    return replace(found, decode_tok_s=1 / seconds, ms_per_token=1e3 * seconds)


def prompt_costs(board: Board, shape: DecoderShape, tokens: int, *, steps: int, on_cpu: bool) -> float:
    """Seconds of a prompt of `tokens` in `steps` that the formula of prefill leaves out: operations begun and
    ended, what steps cost outside of the core, and `on_cpu` the outputs of linears. 0 on a board of which
    they were not measured."""
    if not has_step_facts(board):
        return 0.0
    each = PROMPT_OPERATIONS * shape.layers * board.value(OPERATION) + board.value(STEP)
    seconds = steps * each + board.value(SEQUENCE) + _draw_seconds(board, shape, 1)
    if on_cpu:
        outputs = (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 2 * shape.hidden + 2 * shape.ffn
        cycles = tokens * shape.layers * outputs * board.value(PROMPT_OUTPUT)
        seconds += cycles / (board.value("cpu_cores") * board.value("cpu_hz"))
    return seconds
