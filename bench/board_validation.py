"""The time formula of decode against what others published: how far off it is for models and sources unseen.

    python -m bench.board_validation [--json]
    python -m bench.board_validation FILE [--json]        # the facts that somebody measured on a board

Others' engines are not ours, so each has constants of its own in the same formula, at most four:

    seconds = max(bytes / bandwidth, weights x seconds a weight)
              + layers x seconds a layer + groups x seconds a group

the last for the vendor's grouped formats only. They are fitted without the model that is predicted, and
again without the source that is predicted. Beside it: one bandwidth for everything (the baseline), fitted the
same way, and the facts of the board as they are, with nothing fitted, as `rockledge plan` takes them. Rows
that are left out are counted by reason. Writes bench/results/board_validation.json.
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
import numpy.typing as npt
from scipy.optimize import minimize

from bench import calibrated_facts
from bench.published_decode import LeftOut, Run, by_backend, published
from rockledge.board.boards import find_board

RESULTS = Path(__file__).parent / "results" / "board_validation.json"
Floats = npt.NDArray[np.float64]
SIZES: Final = (
    (0.0, 1e9, "below 1B"),
    (1e9, 3e9, "1B to 3B"),
    (3e9, 6e9, "3B to 6B"),
    (6e9, 1e12, "from 6B"),
)
MANY: Final = 15
RUNS_A_CONSTANT: Final = 3
FASTEST_MEMORY: Final = find_board("rk3588-8gb-lpddr5").value("dram_theoretical")
GOALS: Final = (0.10, 0.30, 0.5)
"""Median and 90th percentile of the error for backends with so many rows, and the latter's share of the
baseline's."""
FACTS: Final = {
    "RKLLM": ("rk3588-8gb", "npu_read_bandwidth"),
    "rk-llama.cpp NPU": ("rk3588-8gb", "npu_read_bandwidth"),
    "llama.cpp CPU": ("rk3588-8gb", "cpu_read_bandwidth"),
    "llama.cpp CPU on Raspberry Pi 5": ("rpi5-8gb", "cpu_read_bandwidth"),
}
"""The bandwidth that a backend would have if nothing but the facts of a board were known."""


@dataclass(frozen=True)
class Constants:
    """Of one backend: bytes/s, seconds a weight, a layer and a group of weights."""

    bandwidth: float
    weight_s: float
    layer_s: float
    group_s: float

    def seconds(self, run: Run) -> float:
        """Of a token, modelled."""
        wall = max(run.bytes / self.bandwidth, run.weights * self.weight_s)
        return wall + run.layers * self.layer_s + _groups(run) * self.group_s


@dataclass(frozen=True)
class Error:
    """Median and 90th percentile of |modelled / published - 1| over `rows`."""

    rows: int
    median: float
    p90: float


@dataclass(frozen=True)
class Validation:
    """Of a backend: the constants fitted on all of its rows; errors without the model and without the source
    that are predicted (None with one source), with nothing fitted (None without such a fact), of the baseline
    without the model; by size without the model; `goals` met, None for few rows."""

    backend: str
    sources: int
    constants: Constants
    model_out: Error
    source_out: Error | None
    facts: Error | None
    baseline: Error
    baseline_source_out: Error | None
    by_size: dict[str, Error]
    goals: bool | None


Predict = Callable[[Run], float]
Fit = Callable[[Sequence[Run]], Predict]


def _groups(run: Run) -> float:
    return run.weights / run.group if run.group else 0.0


def fit(runs: Sequence[Run]) -> Constants:
    """The constants with the least sum of |log(modelled / published)|, from several starts. 0 stands for one
    that these runs cannot tell: a weight's where all have one width, a group's where none has groups, and
    whatever would be more than a third as many constants as runs. No board reads faster than its memory."""
    size, weights, layers, groups, seconds = (
        np.array(column, np.float64)
        for column in zip(
            *((r.bytes, r.weights, r.layers, _groups(r), 1 / r.tok_s) for r in runs), strict=True
        )
    )
    told = {
        "bandwidth": True,
        "layer_s": True,
        "weight_s": len({round(run.bits) for run in runs}) > 1,
        "group_s": bool(groups.any()),
    }
    names = [name for name, there in told.items() if there][: max(1, len(runs) // RUNS_A_CONSTANT)]

    def constants(logs: Floats) -> Constants:
        values = dict(zip(names, np.exp(np.clip(logs, -50.0, 50.0)).tolist(), strict=True))
        return Constants(**{name: values.get(name, 0.0) for name in told})

    def loss(logs: Floats) -> float:
        c = constants(logs)
        wall = np.maximum(size / c.bandwidth, weights * c.weight_s)
        modelled = wall + layers * c.layer_s + groups * c.group_s
        beyond = max(0.0, float(np.log(c.bandwidth / FASTEST_MEMORY)))
        return float(np.abs(np.log(modelled / seconds)).sum()) + 1e3 * beyond

    fastest = min(float(np.max(size / seconds)), 0.9 * FASTEST_MEMORY)
    starts = [
        {"bandwidth": share * fastest, "layer_s": layer_s, "weight_s": weight_s, "group_s": 4e-9}
        for share in (0.8, 1.0)
        for weight_s in (1e-12, float(np.median(seconds / weights)))
        for layer_s in (1e-5, 2e-4)
    ]
    found = [
        minimize(
            loss,
            np.log(np.array([start[name] for name in names], np.float64)),
            method="Nelder-Mead",
            options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-5},
        )
        for start in starts
    ]
    best = min(found, key=lambda one: float(one.fun))
    return constants(best.x)


def _formula(runs: Sequence[Run]) -> Predict:
    constants = fit(runs)
    return lambda run: 1 / constants.seconds(run)


def _baseline(runs: Sequence[Run]) -> Predict:
    bandwidth = float(np.median([run.bytes * run.tok_s for run in runs]))
    return lambda run: bandwidth / run.bytes


def left_out(runs: Sequence[Run], fitted: Fit, key: Callable[[Run], str]) -> Error:
    """The error where every run is predicted by what was fitted on the runs of another `key`."""
    errors = []
    for held in dict.fromkeys(map(key, runs)):
        predict = fitted([run for run in runs if key(run) != held])
        errors += [abs(predict(run) / run.tok_s - 1) for run in runs if key(run) == held]
    return _error(errors)


def _error(errors: Sequence[float]) -> Error:
    return Error(len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)))


def model(run: Run) -> str:
    """What is left out together: models of one shape, such as Qwen2-1.5B and what was made of it."""
    return f"{run.weights} {run.layers}"


def source(run: Run) -> str:
    """The project or page that published it."""
    return run.source


def validate(backend: str, runs: Sequence[Run]) -> Validation:
    """The formula against the runs of one backend."""
    several = len({run.source for run in runs}) > 1
    without_model, baseline = left_out(runs, _formula, model), left_out(runs, _baseline, model)
    sizes = {}
    for least, most, name in SIZES:
        # Constants come from all sizes; only the error is told apart.
        errors = []
        for held in dict.fromkeys(model(run) for run in runs if least <= run.weights < most):
            predict = _formula([run for run in runs if model(run) != held])
            errors += [abs(predict(run) / run.tok_s - 1) for run in runs if model(run) == held]
        if errors:
            sizes[name] = _error(errors)
    facts = None
    if backend in FACTS:
        board, fact = FACTS[backend]
        bandwidth = find_board(board).value(fact)
        facts = _error([abs(bandwidth / run.bytes / run.tok_s - 1) for run in runs])
    median, p90, share = GOALS
    met = without_model.median < median and without_model.p90 < min(p90, share * baseline.p90)
    return Validation(
        backend=backend,
        sources=len({run.source for run in runs}),
        constants=fit(runs),
        model_out=without_model,
        source_out=left_out(runs, _formula, source) if several else None,
        facts=facts,
        baseline=baseline,
        baseline_source_out=left_out(runs, _baseline, source) if several else None,
        by_size=sizes,
        goals=met if len(runs) >= MANY else None,
    )


def show(found: Sequence[Validation], left: Sequence[LeftOut]) -> None:
    """For people."""

    def shown(error: Error | None) -> str:
        return "-" if error is None else f"{error.median:5.0%} {error.p90:5.0%}"

    print("median and 90th percentile of the error, published decode predicted without its")
    head = ("backend", "rows", "model", "source", "base, model", "base, source", "facts", "goals")
    print(("{:32}{:>5}" + "{:>13}" * 5 + "{:>8}").format(*head))
    for one in found:
        columns = (one.model_out, one.source_out, one.baseline, one.baseline_source_out, one.facts)
        goals = "-" if one.goals is None else "met" if one.goals else "missed"
        print(
            f"{one.backend:32}{one.model_out.rows:5}"
            + "".join(f"{shown(c):>13}" for c in columns)
            + f"{goals:>8}"
        )
    print("\nby size, without the model")
    for one in found:
        for name, error in one.by_size.items():
            print(f"{one.backend:32}{name:12}{error.rows:5}{shown(error):>13}")
    print("\nconstants fitted on all rows: GB/s, ps a weight, us a layer, ns a group")
    for one in found:
        c = one.constants
        figures = (c.bandwidth / 1e9, 1e12 * c.weight_s, 1e6 * c.layer_s, 1e9 * c.group_s)
        print(f"{one.backend:32}" + "".join(f"{figure:10.2f}" for figure in figures))
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
    RESULTS.write_text(json.dumps(body(found, left), indent=1) + "\n")
    if args.json:
        print(json.dumps(body(found, left)))
    else:
        show(found, left)


if __name__ == "__main__":
    main(sys.argv[1:])
