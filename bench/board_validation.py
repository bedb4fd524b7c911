"""The time formulas of decode and prompts against what others published: models and sources unseen.

    python -m bench.board_validation [--json]
    python -m bench.board_validation FILE [--json]        # the facts that somebody measured on a board

Others' engines are not ours, so each has constants of its own in the same formula, at most four
(`bench/engine_time.py`). They are fitted (`bench/engine_fit.py`) without the model that is predicted, and
again without the source that is predicted. Beside it: one bandwidth for everything (the baseline), fitted the
same way; the facts of the board as they are, with nothing fitted, as `rockledge plan` takes them; and what
other sources saw of the same model, format and board. Then the same of prompts
(`bench/prefill_validation.py`). Rows that are left out are counted by reason. Writes
bench/results/board_validation.json, and the pictures beside it.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import calibrated_facts
from bench.board_validation_plot import Pair, plot
from bench.engine_fit import Range, fit, ranges, told
from bench.engine_time import Constants, board_of, memory_share, thread_share
from bench.left_out import Apart, Error, error, goals_of, left_out, others, parts_of, show_errors, source
from bench.prefill_validation import BASELINE, prefill_body, show_prefill, validate_prefill
from bench.published_decode import LeftOut, Run, by_backend, published
from bench.published_prefill import by_backend as prompts_by_backend
from bench.published_prefill import prompts

RESULTS = Path(__file__).parent / "results" / "board_validation.json"
PREFILL_PICTURE = RESULTS.with_stem("board_validation_prefill").with_suffix(".png")
PARTS: Final[tuple[tuple[str, Callable[[Run], bool]], ...]] = (
    ("below 1B", lambda run: run.weights < 1e9),
    ("1B to 3B", lambda run: 1e9 <= run.weights < 3e9),
    ("3B to 6B", lambda run: 3e9 <= run.weights < 6e9),
    ("from 6B", lambda run: run.weights >= 6e9),
    ("several rows", lambda run: run.rows > 1),
    ("Raspberry Pi 5", lambda run: run.chip == "rpi5"),
    ("one row, RK3588", lambda run: run.rows == 1 and run.chip == "rk3588"),
)
UNITS: Final = {"bandwidth": 1e-9, "weight_s": 1e12, "layer_s": 1e6, "group_s": 1e9}
FACTS: Final = {
    "RKLLM": "npu_read_bandwidth",
    "rk-llama.cpp NPU": "npu_read_bandwidth",
    "llama.cpp CPU": "cpu_read_bandwidth",
}
"""The bandwidth that a backend would have if nothing but the facts of its board were known."""


@dataclass(frozen=True)
class Validation:
    """Of a backend: the constants fitted on all of its rows, which of them were, and in what range; errors
    without the model and without the source (None with one source) that are predicted, with nothing fitted
    (None without such a fact), of other sources' figures of the same (None where there are none); parts of
    `model_out` by name; goals met without the model and without the source, None for few rows."""

    backend: str
    sources: int
    constants: Constants
    fitted: tuple[str, ...]
    ranges: dict[str, Range]
    model_out: Apart
    source_out: Apart | None
    facts: Error | None
    others: Error | None
    parts: dict[str, Apart]
    goals: dict[str, bool] | None
    pairs: tuple[Pair, ...]


Predict = Callable[[Run], float]


def _formula(runs: Sequence[Run]) -> Predict:
    return fit(runs).tok_s


def _baseline(runs: Sequence[Run]) -> Predict:
    bandwidth = float(np.median([run.bytes / memory_share(run) / run.seconds for run in runs]))
    return lambda run: run.rows * bandwidth * memory_share(run) / run.bytes


def model(run: Run) -> str:
    """What is left out together: models of one shape, such as Qwen2-1.5B and what was made of it."""
    return f"{run.weights} {run.layers}"


def same(run: Run) -> str:
    """Model, format, chip and rows: what nothing but the source can make differ."""
    return f"{model(run)} {run.bits:.2f} {run.group} {run.chip} {run.rows}"


def validate(backend: str, runs: Sequence[Run]) -> Validation:
    """The formula against the runs of one backend."""
    several = len(set(map(source, runs))) > 1
    by_model, model_base = left_out(runs, _formula, model), left_out(runs, _baseline, model)
    model_out, source_out = Apart(error(by_model), error(model_base)), None
    if several:
        by_source = [left_out(runs, fitted, source) for fitted in (_formula, _baseline)]
        source_out = Apart(*map(error, by_source))
    facts = None
    if backend in FACTS:
        read = [(r, r.rows * board_of(r).value(FACTS[backend]) / r.bytes) for r in runs]
        facts = error(read)
    return Validation(
        backend=backend,
        sources=len(set(map(source, runs))),
        constants=fit(runs),
        fitted=told(runs),
        ranges=ranges(backend),
        model_out=model_out,
        source_out=source_out,
        facts=facts,
        others=others(runs, same),
        parts=parts_of(by_model, model_base, PARTS),
        goals=goals_of(model_out, source_out),
        pairs=tuple(
            Pair(run.tok_s, tok_s, base) for (run, tok_s), (_, base) in zip(by_model, model_base, strict=True)
        ),
    )


def show(found: Sequence[Validation], left: Sequence[LeftOut]) -> None:
    """For people."""
    print("median and 90th percentile of the error, published decode predicted without its")
    columns = {"facts": lambda one: one.facts, "others": lambda one: one.others}
    show_errors(found, "baseline", columns)
    print("\nconstants fitted on all rows: GB/s, ps a weight, us a layer, ns a group; - is not fitted")
    for one in found:
        values = asdict(one.constants)
        figures = (f"{values[n] * u:10.2f}" if n in one.fitted else f"{'-':>10}" for n, u in UNITS.items())
        print(f"{one.backend:18}" + "".join(figures))
    print("\nlooked for within, in these units")
    for one in found:
        for name, within in one.ranges.items():
            low, high = within.low * UNITS[name], within.high * UNITS[name]
            print(f"{one.backend:18}{name:10}{low:8.2f} to {high:.2f}: {within.source}")
    shares = (f"{threads} threads {thread_share(threads):.2f}" for threads in (2, 4, 8))
    print("\ntime of a layer between its products, beside that of four A76: " + ", ".join(shares))
    print("\nrows left out")
    for reason, rows in Counter(one.reason for one in left).most_common():
        print(f"{rows:5}  {reason}")


def body(found: Sequence[Validation], left: Sequence[LeftOut]) -> dict[str, Any]:
    """What is written."""
    reasons = Counter(one.reason for one in left)
    return {"backends": [asdict(one) for one in found], "left_out": dict(reasons.most_common())}


def main(arguments: Sequence[str]) -> None:
    """Validates every backend."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the object that is written")
    parser.add_argument(
        "facts", type=Path, nargs="?", help="a file of bench --calibrate-board, in their place"
    )
    args = parser.parse_args(arguments)
    if args.facts is not None:
        calibrated_facts.run(args.facts, as_json=args.json)
        return
    runs, left = published()
    found = [validate(backend, of_backend) for backend, of_backend in by_backend(runs)]
    of_prompts, prompts_left = prompts()
    prefill = [validate_prefill(backend, some) for backend, some in prompts_by_backend(of_prompts)]
    written = body(found, left) | prefill_body(prefill, prompts_left)
    RESULTS.write_text(json.dumps(written, indent=1) + "\n")
    plot({one.backend: one.pairs for one in found}, RESULTS.with_suffix(".png"))
    plot({one.backend: one.pairs for one in prefill}, PREFILL_PICTURE, BASELINE)
    if args.json:
        print(json.dumps(written))
    else:
        show(found, left)
        show_prefill(prefill, prompts_left)


if __name__ == "__main__":
    main(sys.argv[1:])
