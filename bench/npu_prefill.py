"""What the NPU can do for prompts: modelled tok/s of 1B, 3B and 8B shapes, what binds, what it rests on.

    python -m bench.npu_prefill [--json]

Weights are 4.25-bit codes, activations one int8 plane. The forecast is of what the runtime does
(`npu_as_built`): one chunk at a time, blocks that memory has no room for unpacked in every step, caches
maintained for what is used. It is made for the vendor's driver at its clock, and for mainline's at its own
and at that of a public patch. The formula is `rockledge/board/prefill.py`; no factor in it stands for
efficiency. Published runs with enough information are predicted with their own schedules. Nothing here was
measured on a board. Writes bench/results/npu_prefill.json.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.npu_as_built import Prefill
from bench.npu_published import GROUPED, LEFT_OUT, PROMPT, TILED, Pair, fitted_tile_rows, pairs
from rockledge.board.boards import Board, find_board
from rockledge.board.npu_drivers import MAINLINE_PATCHED_HZ, board_with_driver
from rockledge.board.prefill import SYNC
from rockledge.runtime.offload.prompt_time import PARTS, PromptTime

RESULTS = Path(__file__).parent / "results"
MODELS = ("1b", "3b", "8b")
PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192)
DRIVERS: dict[str, tuple[str, float | None, int]] = {
    "vendor": ("rknpu", None, 1),
    "mainline": ("rocket", None, 3),
    "mainline, patched": ("rocket", MAINLINE_PATCHED_HZ, 3),
}
"""Driver, the NPU's clock where it is not the driver's own, address spaces."""
VENDOR = "vendor"
GOAL = ("8b", 512, 150.0)  # tok/s
SWING = 0.3
ALL_UNFITTED = "all, nothing fitted"
ALL_TESTED = "all, rows of a tile fitted on other runs"
BANDWIDTHS = ("npu_bus_bandwidth", "npu_core_bandwidth", "cpu_read_bandwidth")
CPU_CYCLES = (
    "cpu_unpack_for_npu",
    "cpu_attention",
    "cpu_norm",
    "cpu_quantise",
    "cpu_rope",
    "cpu_gate",
    "cpu_hadamard",
    "cpu_epilogue",
)
ATTENTION_CYCLES = (
    "cpu_attention_cycles_per_score",
    "cpu_attention_cycles_per_score_mac",
    "cpu_attention_cycles_per_value_mac",
)


@dataclass(frozen=True)
class Assumption:
    """What the figure takes for granted, and the figure if it were otherwise."""

    assumed: str
    otherwise: str
    tok_s: float


@dataclass(frozen=True)
class Forecast:
    """One model and prompt as the runtime reads it under a driver: modelled speed, of the first prompt too,
    its steps, the tokens from which steps go to the NPU, what most time is spent on; `elapsed` and `alone`
    as for `PromptTime`; bytes that cache maintenance hands over, and its calls. For the vendor's driver
    `swings`: tok/s with a fact 30 % lower and 30 % higher; and assumptions with what the figure is without
    them."""

    driver: str
    model: str
    tokens: int
    tok_s: float
    first_tok_s: float
    steps: tuple[int, ...]
    from_rows: int
    binds: str
    elapsed: dict[str, float]
    alone: dict[str, float]
    synced_bytes: int
    sync_calls: int
    swings: dict[str, tuple[float, float]]
    assumptions: list[Assumption]

    @property
    def carried_by(self) -> Assumption:
        return max(self.assumptions, key=lambda a: max(a.tok_s / self.tok_s, self.tok_s / a.tok_s))


class Model:
    """A model on a board and on boards with other facts, the vendor's driver; each is planned once."""

    def __init__(self, board: Board, name: str) -> None:
        self.name = name
        self._as_is = Prefill(board, name)
        cycles = tuple(fact for fact in board.facts if fact.startswith(CPU_CYCLES))
        swings = {
            "NPU clock": ("npu_hz",),
            "DRAM bandwidth": BANDWIDTHS,
            "dispatch": ("npu_submit_seconds",),
            "cache maintenance": ("cpu_cache_sync_bandwidth",),
            "CPU cycles": cycles,
        }
        self._swings = {
            what: tuple(Prefill(_scaled(board, facts, factor), name) for factor in (1 - SWING, 1 + SWING))
            for what, facts in swings.items()
        }
        twice = {fact: 2 * board.value(fact) for fact in cycles if fact not in ATTENTION_CYCLES}
        self._otherwise = [
            (
                "every core makes 1,024 products a cycle",
                "all three make what the best published int8 product did, 1.4 Top/s",
                Prefill(_at_published_rate(board), name),
            ),
            (
                "26 GB/s for all that moves",
                "22 GB/s, the ceiling that ork-driver met",
                Prefill(board.measured({"npu_bus_bandwidth": 22e9}, "ork-driver"), name),
            ),
            (
                "attention's loops take the cycles that llvm-mca gives them",
                "twice as many",
                Prefill(board.measured(_attention(board, 2.0), "llvm-mca, doubled"), name),
            ),
            (
                "unpacking, epilogue, quantisation and all else but attention do too",
                "twice as many",
                Prefill(board.measured(twice, "llvm-mca, doubled"), name),
            ),
            (
                "floats go through memory between operations",
                "they stay in the caches",
                Prefill(board, name, cached=True),
            ),
            ("activations in one int8 plane", "two planes everywhere", Prefill(board, name, planes=2)),
            (
                "a core cleans or invalidates 20 GB/s of its caches",
                "10 GB/s",
                Prefill(board.measured({"cpu_cache_sync_bandwidth": 10e9}, "half of it"), name),
            ),
        ]

    def forecast(self, tokens: int) -> Forecast:
        """The modelled prefill of one prompt, and what it rests on."""
        as_is = self._as_is.prompt(tokens)

        def speed(prefill: Prefill) -> float:
            return round(tokens / prefill.prompt(tokens).seconds, 1)

        streamed = self._as_is.prompt(tokens, streamed=True)
        in_turn = as_is.seconds - as_is.elapsed[SYNC] + as_is.alone[SYNC]
        assumptions = [
            Assumption(assumed, otherwise, speed(prefill)) for assumed, otherwise, prefill in self._otherwise
        ]
        assumptions += [
            Assumption(
                "sums and weights are handed over by all cores while the NPU works",
                "by one, while it waits",
                round(tokens / in_turn, 1),
            ),
            Assumption(
                f"{as_is.pinned:.0%} of the blocks stay unpacked",
                "none does",
                round(tokens / streamed.seconds, 1),
            ),
        ]
        swings = {what: (speed(low), speed(high)) for what, (low, high) in self._swings.items()}
        return forecast(VENDOR, self.name, self._as_is, tokens, swings, assumptions)


def forecast(
    driver: str,
    model: str,
    prefill: Prefill,
    tokens: int,
    swings: dict[str, tuple[float, float]] | None = None,
    assumptions: Sequence[Assumption] = (),
) -> Forecast:
    """The modelled prefill of one prompt."""

    def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
        return {side: round(value, 4) for side, value in seconds.items()}

    def speed(time: PromptTime) -> float:
        return round(tokens / time.seconds, 1)

    time = prefill.prompt(tokens)
    return Forecast(
        driver=driver,
        model=model,
        tokens=tokens,
        tok_s=speed(time),
        first_tok_s=speed(prefill.prompt(tokens, fresh=True)),
        steps=time.steps,
        from_rows=prefill.plan.from_rows,
        binds=time.binds,
        elapsed=rounded(time.elapsed),
        alone=rounded(time.alone),
        synced_bytes=round(time.syncs.bytes),
        sync_calls=round(time.syncs.calls),
        swings=swings or {},
        assumptions=list(assumptions),
    )


def under(board: Board, driver: str, model: str) -> Prefill:
    """What the engine plans for a model with one of `DRIVERS`."""
    name, hz, spaces = DRIVERS[driver]
    return Prefill(board_with_driver(board, name, hz), model, spaces=spaces)


def _scaled(board: Board, facts: Sequence[str], factor: float) -> Board:
    return board.measured({name: factor * board.value(name) for name in facts}, "sensitivity")


def _attention(board: Board, factor: float) -> dict[str, float]:
    return {name: factor * board.value(name) for name in ATTENTION_CYCLES}


def _at_published_rate(board: Board) -> Board:
    peak = 2 * board.value("npu_cores") * board.value("npu_hz") * board.value("npu_int8_macs_per_cycle")
    share = board.value("npu_int8_ops_matmul") / peak
    rate = share * board.value("npu_int8_macs_per_cycle")
    return board.measured({"npu_int8_macs_per_cycle": rate}, "best published int8 product")


def median_errors(found: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """For each kind of run, and for each way to give schedules every run once: median of |predicted /
    published - 1|, the median ratio, and the number of runs. Runs that something was fitted on are out."""
    kinds = dict.fromkeys(pair.kind for pair in found)
    groups = {kind: [p for p in found if p.kind == kind and not p.fitted] for kind in kinds}
    for name, without in ((ALL_UNFITTED, (TILED, GROUPED)), (ALL_TESTED, (PROMPT,))):
        groups[name] = [p for p in found if p.kind not in without and not p.fitted]
    return {
        kind: {
            "median_error": round(statistics.median(abs(p.ratio - 1) for p in of), 3),
            "median_ratio": round(statistics.median(p.ratio for p in of), 3),
            "runs": len(of),
        }
        for kind, of in groups.items()
        if of
    }


def goal(forecasts: Sequence[Forecast]) -> dict[str, Any]:
    """The row of the goal: the required rate and what the formula says."""
    model, tokens, wanted = GOAL
    row = _goal_row(forecasts)
    return {
        "model": model,
        "tokens": tokens,
        "wanted_tok_s": wanted,
        "modelled_tok_s": row.tok_s,
        "met": row.tok_s >= wanted,
        "binds": row.binds,
    }


def _goal_row(forecasts: Sequence[Forecast]) -> Forecast:
    (row,) = (f for f in forecasts if (f.driver, f.model, f.tokens) == (VENDOR, *GOAL[:2]))
    return row


def report(forecasts: Sequence[Forecast], found: Sequence[Pair], rows: int) -> list[str]:
    """Everything as lines of text."""
    lines = [
        "modelled prefill as the runtime does it, weights in 4.25-bit codes: seconds by what is waited for"
    ]
    for driver in dict.fromkeys(f.driver for f in forecasts):
        lines += ["", f"{driver} driver"]
        lines.append(
            "model tokens  from  tok/s  first     NPU     bus  beside   syncs  attention  other CPU  "
            "GB synced   calls  binds"
        )
        for f in (f for f in forecasts if f.driver == driver):
            parts = [f.elapsed[part] for part in PARTS]
            times = "{:8.2f}{:8.2f}{:8.2f}{:8.2f}{:11.2f}{:11.2f}".format(*parts)
            lines.append(
                f"{f.model:5} {f.tokens:6} {f.from_rows:5} {f.tok_s:6.0f} {f.first_tok_s:6.0f}{times}"
                f"{f.synced_bytes / 1e9:11.1f}{f.sync_calls:8}  {f.binds}"
            )
    lines += ["", "tok/s with a fact 30 % lower .. higher, and the assumption that moves the figure most"]
    for f in (f for f in forecasts if f.driver == VENDOR):
        swings = "  ".join(f"{name} {low:.0f}..{high:.0f}" for name, (low, high) in f.swings.items())
        lines.append(f"{f.model:5} {f.tokens:6} {f.tok_s:6.0f}  {swings}")
        a = f.carried_by
        lines.append(f"{'':22}{a.assumed}; if not ({a.otherwise}): {a.tok_s:.0f}")
    lines += ["", f"published runs; the closed runtime's tiles have {rows} rows where that is fitted"]
    for kind in dict.fromkeys(pair.kind for pair in found):
        lines += ["", f"{kind:52}published  predicted  ratio"]
        for p in (p for p in found if p.kind == kind):
            mark = "  fitted" if p.fitted else ""
            lines.append(f"{p.what:48}{p.published:13.4g}{p.predicted:11.4g} {p.ratio:6.2f} {p.unit}{mark}")
    lines += ["", f"{'median over runs that nothing was fitted on':52}error  ratio  runs"]
    for kind, error in median_errors(found).items():
        lines.append(f"{kind:48}{error['median_error']:9.1%}{error['median_ratio']:7.2f}{error['runs']:6.0f}")
    lines += ["", "left out:"]
    lines += [f"  {what}: {why}" for what, why in LEFT_OUT.items()]
    reached = goal(forecasts)
    verdict = "met" if reached["met"] else "not met"
    lines += [
        "",
        (
            f"goal: Llama-3-8B, 512 tokens, at least {reached['wanted_tok_s']:.0f} tok/s modelled: "
            f"{reached['modelled_tok_s']:.0f}, {verdict}; binds: {reached['binds']}"
        ),
        "what it would be otherwise:",
    ]
    lines += [f"{a.tok_s:6.0f}  {a.otherwise}, not: {a.assumed}" for a in _goal_row(forecasts).assumptions]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables and writes the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.npu_prefill", description="modelled NPU prefill")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--output", type=Path, default=RESULTS / "npu_prefill.json")
    chosen = parser.parse_args(arguments)
    board = find_board("rk3588-8gb")
    models = [Model(board, name) for name in MODELS]
    forecasts = [model.forecast(tokens) for model in models for tokens in PROMPTS]
    for driver in DRIVERS:
        if driver != VENDOR:
            plans = {name: under(board, driver, name) for name in MODELS}
            forecasts += [
                forecast(driver, n, plan, tokens) for n, plan in plans.items() for tokens in PROMPTS
            ]
    found, rows = list(pairs(board)), fitted_tile_rows(board)
    result = {
        "basis": "modelled",
        "board": board.name,
        "bits_per_weight": 4.25,
        "goal": goal(forecasts),
        "forecasts": [
            {**asdict(f), "carried_by": asdict(f.carried_by) if f.assumptions else None} for f in forecasts
        ],
        "fitted_tile_rows": rows,
        "pairs": [{**asdict(p), "ratio": round(p.ratio, 3)} for p in found],
        "median_errors": median_errors(found),
        "left_out": LEFT_OUT,
    }
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result) if chosen.json else "\n".join(report(forecasts, found, rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
