"""A facts file of a real board beside the facts of its model: `python -m bench.board_validation FILE`.

Each constant in it, with what the board model has and whether it lies within the range of that; and what
predictions become with it. A file of a chip that is not known is compared with a board that is named.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rockledge.board.boards import PROGRAMMED, Board, board_with, find_chip_named
from rockledge.board.facts import Fact
from rockledge.board.facts_file import Measured, MeasuredFacts, read_facts
from rockledge.errors import BudgetError, UsageError
from rockledge.model.known_shapes import KNOWN_SHAPES
from rockledge.planning.speed import Speed

MODELS: Final = ("llama-3.2-1b", "qwen3-4b", "llama-3.1-8b")
BITS, CONTEXT, PROMPT = 4, 1024, 512
ALONE: Final = 0.1
"""What a fact without a published range may be off, as a share."""


@dataclass(frozen=True)
class Compared:
    """A measured constant beside the fact of the same name; `low`, `high`: the range of that, `ALONE` either
    way of a fact without one; `modelled` is None where the model has no such fact. `inside`: whether what was
    measured lies in that range."""

    name: str
    unit: str
    measured: float
    spread: tuple[float, float]
    modelled: float | None
    low: float | None
    high: float | None
    inside: bool | None
    kind: str


@dataclass(frozen=True)
class Prediction:
    """Tokens/s of decode after `CONTEXT` tokens and of a prompt of `PROMPT`, by the facts of the model and by
    the measured ones; None where a model does not fit."""

    model: str
    decode: float
    decode_measured: float
    prefill: float | None
    prefill_measured: float | None


def reference(facts: MeasuredFacts) -> Board:
    """The board that such facts are compared with: that of the chip, else the one that programs are for."""
    chip = find_chip_named(facts.chip)
    return PROGRAMMED if chip is None else board_with(chip, facts.ram_bytes)


def compared(facts: MeasuredFacts, board: Board) -> list[Compared]:
    """Every constant of the file; those of a virtual NPU are left out."""
    measured = dict(facts.facts)
    if facts.npu is not None and not facts.npu.virtual:
        measured |= facts.npu.facts
    return [_compared(name, one, board.facts.get(name)) for name, one in measured.items()]


def _compared(name: str, one: Measured, fact: Fact | None) -> Compared:
    if fact is None:
        return Compared(name, one.unit, one.value, one.spread, None, None, None, None, "not modelled")
    low, high = fact.spread or ((1 - ALONE) * fact.value, (1 + ALONE) * fact.value)
    inside = low <= one.value <= high
    return Compared(name, one.unit, one.value, one.spread, fact.value, low, high, inside, fact.kind)


def predictions(facts: MeasuredFacts, board: Board) -> list[Prediction]:
    """Of models that many people know, all weights at `BITS`; none where nothing of ours runs."""
    if board.chip.refused:
        return []
    return [_prediction(name, board, facts.board) for name in MODELS]


def _prediction(name: str, modelled: Board, measured: Board) -> Prediction:
    config = KNOWN_SHAPES[name].config
    one, other = (Speed(board, config, BITS, CONTEXT + PROMPT) for board in (modelled, measured))
    return Prediction(
        name,
        one.decoding(CONTEXT).decode_tok_s,
        other.decoding(CONTEXT).decode_tok_s,
        _prefill(one),
        _prefill(other),
    )


def _prefill(speed: Speed) -> float | None:
    try:
        return PROMPT / speed.prompt_seconds(PROMPT)
    except BudgetError:
        return None


def body(facts: MeasuredFacts) -> dict[str, Any]:
    """All of it as JSON values."""
    board = reference(facts)
    return {
        "processor": facts.processor,
        "compared_with": board.name,
        "chip_known": find_chip_named(facts.chip) is not None,
        "constants": [asdict(one) for one in compared(facts, board)],
        "predictions": [asdict(one) for one in predictions(facts, board)],
    }


def show(facts: MeasuredFacts) -> None:
    """For people."""
    board = reference(facts)
    print(f"{facts.processor}, {facts.threads} threads, {facts.ram_bytes / (1 << 30):.1f} GiB")
    if find_chip_named(facts.chip) is not None:
        print(f"compared with {board.name}")
    else:
        print(f"its chip is not known; compared with {board.name} all the same")
    print(f"\n{'constant':50}{'unit':>16}{'measured':>11}{'modelled':>11}{'ratio':>8}  range")
    found = compared(facts, board)
    for one in found:
        if one.modelled is None:
            print(f"{one.name:50}{one.unit:>16}{one.measured:11.4g}{'-':>11}{'-':>8}  not modelled")
            continue
        print(
            f"{one.name:50}{one.unit:>16}{one.measured:11.4g}{one.modelled:11.4g}"
            f"{one.measured / one.modelled:8.2f}  {'inside' if one.inside else 'outside'} "
            f"{one.low:.4g} to {one.high:.4g} ({one.kind})"
        )
    known = [one for one in found if one.inside is not None]
    print(f"\n{sum(bool(one.inside) for one in known)} of {len(known)} are inside what the model has")
    if facts.npu is not None and facts.npu.virtual:
        print("its NPU is a virtual one, whose figures are left out")
    if board.chip.refused:
        print(f"\nnothing is predicted: this program does not run on {board.name}: {board.chip.refused}")
        return
    print(f"\npredicted tok/s at {BITS} bits, {'modelled':>10} facts, then {'measured':>10} ones")
    for line in predictions(facts, board):
        prompts = [
            "-" if tok_s is None else f"{tok_s:.1f}" for tok_s in (line.prefill, line.prefill_measured)
        ]
        print(
            f"{line.model:16}decode after {CONTEXT}: {line.decode:7.2f} {line.decode_measured:7.2f}   "
            f"prefill of {PROMPT}: {prompts[0]:>8} {prompts[1]:>8}"
        )


def run(path: Path, *, as_json: bool) -> None:
    """Reads a file and prints what it says; a file that is wrong ends the program with a sentence."""
    try:
        facts = read_facts(path)
    except UsageError as error:
        raise SystemExit(str(error)) from None
    if as_json:
        print(json.dumps(body(facts)))
    else:
        show(facts)
