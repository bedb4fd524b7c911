"""The constants of an engine from runs that were published: least squares of log(modelled / published).

A constant that something else than a model's speed was measured of is looked for within what was published:
the rate at which a board's memory is read, by the spread of its fact; a layer's time in the vendor's runtime,
by the least that a call of its library takes. So a few runs of one user cannot move it to where no board is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from bench.engine_time import REFERENCE, Constants
from bench.published_decode import Run
from rockledge.board.boards import find_board

Floats = npt.NDArray[np.float64]
FITTED: Final = ("bandwidth", "weight_s", "layer_s", "group_s")
RUNS_A_CONSTANT: Final = 3
"""With fewer, a constant is not fitted: it would only repeat them."""
LIBRARY_CALL: Final = 32.9e-6
"""Seconds that rknn_matmul_run takes at least (unimatrix099/rk-llama.cpp
docs/backend/RKNPU2-decode-research.md 1c, rknpu2-run-latency-probe.c)."""
LAYER_CALLS: Final = (4, 9)
"""Products of a layer, from q|k|v, o, gate|up and down to seven linears and attention's scores and values:
which of them the vendor's runtime makes at once, and whether attention runs there, is not published."""
_FACTS: Final = {
    "RKLLM": "npu_read_bandwidth",
    "rk-llama.cpp NPU": "npu_read_bandwidth",
    "llama.cpp CPU": "cpu_read_bandwidth",
}
_MULTIPLIED_BY_BYTES: Final = ("rk-llama.cpp NPU",)
"""Whose products take half the time at half the width, as reading does: one core makes 0.9, 1.8 and 4 Top/s
in 16, 8 and 4 bits (clehaxze's benchmark in allbilly/rk3588)."""
_START: Final = {"weight_s": 1e-11, "layer_s": 3e-4, "group_s": 4e-9}
_WIDEST: Final = {
    "bandwidth": (1e9, find_board("rk3588-8gb-lpddr5").value("dram_theoretical")),
    "weight_s": (1e-14, 1e-9),
    "layer_s": (1e-7, 1e-1),
    "group_s": (1e-12, 1e-6),
}
"""What any fit stays in: no board reads faster than its memory."""


@dataclass(frozen=True)
class Range:
    """What was published of a constant apart from models, from `low` to `high`, and by whom."""

    low: float
    high: float
    source: str


def ranges(backend: str) -> dict[str, Range]:
    """By constant; empty where nothing is known."""
    found = {}
    if backend in _FACTS:
        fact = REFERENCE.facts[_FACTS[backend]]
        low, high = fact.spread or (fact.value, fact.value)
        found["bandwidth"] = Range(low, high, fact.source)
    if backend == "RKLLM":
        low, high = (calls * LIBRARY_CALL for calls in LAYER_CALLS)
        found["layer_s"] = Range(low, high, f"{LAYER_CALLS[0]} to {LAYER_CALLS[1]} calls of the library")
    return found


def told(runs: Sequence[Run]) -> tuple[str, ...]:
    """The constants that these runs can tell apart. A weight's needs several widths or several rows, a
    group's needs groups; never more than a third as many as runs."""
    widths, rows = {round(run.bits) for run in runs}, {run.rows for run in runs}
    by_bytes = runs[0].backend in _MULTIPLIED_BY_BYTES
    there = {
        "bandwidth": True,
        "layer_s": True,
        "weight_s": not by_bytes and len(widths) + len(rows) > 2,
        "group_s": any(run.group for run in runs),
    }
    return tuple(name for name, yes in there.items() if yes)[: max(1, len(runs) // RUNS_A_CONSTANT)]


def fit(runs: Sequence[Run]) -> Constants:
    """Of the backend of `runs`, from several starts; 0 for what they cannot tell. Without grouped formats
    among them, each group of inputs is taken for a call of the library. Raises ValueError without runs."""
    if not runs:
        raise ValueError("no runs to fit constants on")
    names, known = told(runs), ranges(runs[0].backend)
    seconds = np.log([run.seconds for run in runs])
    fastest = max(run.bytes / run.seconds for run in runs)

    def bounds(name: str) -> tuple[float, float]:
        if name in known:
            return known[name].low, known[name].high
        return _WIDEST[name]

    def constants(logs: Floats) -> Constants:
        values = dict(zip(names, np.exp(logs).tolist(), strict=True))
        call = 0.0 if "group_s" in values else LIBRARY_CALL
        return Constants(**{name: values.get(name, 0.0) for name in FITTED}, input_group_s=call)

    def errors(logs: Floats) -> Floats:
        found = constants(logs)
        return np.log([found.seconds(run) for run in runs]) - seconds

    low, high = (np.log([bounds(name)[end] for name in names]) for end in (0, 1))
    best: tuple[float, Floats] | None = None
    for share in (0.9, 1.2):
        for factor in (0.1, 1.0):
            start = [share * fastest if n == "bandwidth" else factor * _START[n] for n in names]
            inside = np.clip(np.log(start), low + 1e-6 * (high - low), high - 1e-6 * (high - low))
            found = least_squares(errors, inside, bounds=(low, high), xtol=1e-10, ftol=1e-10)
            if best is None or found.cost < best[0]:
                best = float(found.cost), found.x
    assert best is not None
    return constants(best[1])
