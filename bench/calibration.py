"""Whether constants of a machine, measured without a model, predict what `rockledge bench` measures of some.

    python -m bench.calibration [--rounds 5] [--json]

Random artifacts of three shapes. In every round the probes of `rockledge bench --calibrate-board` run, then
`rockledge bench` of each model: decode of one sequence and of four after 128 tokens, prefill of 128 and of
512 tokens. Predicted is with the medians of all probes, measured the median of the rounds. All weights lie in
small pages of the page cache, those of the models and those that probes stream: how much of a file gets huge
ones depends on what the machine did before (`python -m bench.file_pages`).
Prints both and the median of the errors; writes bench/results/calibration.json, and the facts to
bench/results/calibration_facts.json. On a quiet machine it takes less than five minutes.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.file_pages import huge_share, read_small
from bench.machine import Foreign, commit, processor
from bench.models import cache
from bench.speed_runs import ours
from rockledge.artifact.layout import TENSORS
from rockledge.board.boards import Board
from rockledge.board.facts_file import text
from rockledge.board_calibration.calibrate import CpuRun
from rockledge.model.config import ModelConfig
from rockledge.planning.speed import Speed
from rockledge.synth import SHAPES, synth_artifact

TARGET: Final = Path(__file__).parent / "results" / "calibration.json"
FACTS: Final = Path(__file__).parent / "results" / "calibration_facts.json"
GOAL: Final = 0.12
REPEATS: Final = 5
"""Of every probe in a round."""
AFTER, GENERATED = 128, 32
DECODES: Final = (1, 4)
PROMPTS: Final = (128, 512)


@dataclass(frozen=True)
class Shape:
    """A model by its configuration, all weights at `bits`."""

    name: str
    config: ModelConfig
    bits: int

    def artifact(self) -> Path:
        """Random weights; made once, and nobody else's, so that no other process keeps its pages."""
        target = cache() / "calibration" / f"{self.name}-{self.bits}bit"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            synth_artifact(self.config, target, bits=self.bits)
        return target


MODELS: Final = (
    Shape("135m", SHAPES["135m"], 4),
    # The shape of SmolLM2-360M.
    Shape(
        "360m",
        replace(SHAPES["135m"], hidden=960, layers=32, heads=15, kv_heads=5, ffn=2560),
        3,
    ),
    Shape("1b", SHAPES["1b"], 4),
)


@dataclass(frozen=True)
class Row:
    """Tokens/s of all sequences together; `runs`: of the rounds."""

    model: str
    what: str
    predicted: float
    measured: float
    runs: tuple[float, ...]

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


def predicted(shape: Shape, board: Board) -> dict[str, float]:
    """Tokens/s by what `bench` would measure, from constants of the board alone."""
    speed = Speed(board, shape.config, shape.bits, AFTER + GENERATED)
    middle = AFTER + GENERATED // 2
    found = {_decode(n): n * speed.decoding(middle, n).decode_tok_s for n in DECODES}
    return found | {_prefill(n): n / speed.prompt_seconds(n) for n in PROMPTS}


def measured(shape: Shape, threads: int) -> dict[str, float]:
    """The same as `rockledge bench` measures it."""
    sizes = ("--prompt", *PROMPTS, "--depth", AFTER, "--batch", *DECODES, "--generate", GENERATED)
    found = ours(shape.artifact(), threads, *sizes, "--npu", "off")
    decode = {_decode(one["sequences"]): one["tok_s"] for one in found["decode"]}
    return decode | {_prefill(one["prompt_tokens"]): one["tok_s"] for one in found["prefill"]}


def _decode(sequences: int) -> str:
    return f"decode, {sequences}"


def _prefill(tokens: int) -> str:
    return f"prefill, {tokens}"


def rows(board: Board, runs: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Row]:
    """Every model's figures; `runs`: measured ones by model and by what, one a round."""
    found = []
    for shape in MODELS:
        for what, tok_s in predicted(shape, board).items():
            values = tuple(runs[shape.name][what])
            found.append(Row(shape.name, what, tok_s, statistics.median(values), values))
    return found


def median_error(found: Sequence[Row]) -> float:
    """Of the errors' sizes."""
    return statistics.median(abs(row.error) for row in found)


def body(found: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """What is written."""
    return {
        **about,
        "median_error": round(median_error(found), 4),
        "goal": GOAL,
        "rows": [
            {
                "model": row.model,
                "what": row.what,
                "predicted_tok_s": round(row.predicted, 2),
                "measured_tok_s": round(row.measured, 2),
                "measured_runs": [round(run, 2) for run in row.runs],
                "error": round(row.error, 4),
            }
            for row in found
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the object that is written")
    args = parser.parse_args(arguments)
    for shape in MODELS:
        read_small(shape.artifact() / TENSORS)
    run, foreign = CpuRun(cache(), small_pages=True), Foreign()
    runs: dict[str, dict[str, list[float]]] = {shape.name: {} for shape in MODELS}
    for _ in range(args.rounds):
        run.repeat(REPEATS)
        for shape in MODELS:
            for what, tok_s in measured(shape, len(run.cores)).items():
                runs[shape.name].setdefault(what, []).append(tok_s)
    facts = run.facts()
    found = rows(facts.board, runs)
    about = {
        "processor": processor(),
        "threads": len(run.cores),
        "commit": commit(),
        "taken_by_others": foreign.share(),
        "mapped_huge": {shape.name: round(huge_share(shape.artifact()), 3) for shape in MODELS},
    }
    result = body(found, about)
    TARGET.write_text(json.dumps(result, indent=1) + "\n")
    FACTS.write_text(text(facts))
    if args.json:
        json.dump(result, sys.stdout)
        print()
        return 0
    print(
        f"{about['processor']}, {about['threads']} threads; others took {about['taken_by_others']:.0%} of it"
    )
    print(f"{'':16}{'predicted, tok/s':>18}{'measured':>12}{'error':>10}")
    for row in found:
        print(f"{row.model:6}{row.what:14}{row.predicted:14.1f}{row.measured:12.1f}{row.error:10.1%}")
    verdict = "met" if result["median_error"] < GOAL else "missed"
    print(f"median error {result['median_error']:.1%}, goal below {GOAL:.0%}: {verdict}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
