"""How ours serves many clients beside llama-server, on this machine, in alternating runs.

    python -m bench.serving [--only ROW ... | --constrained] [--engines ENGINE ...] [--shapes SHAPE ...]
                            [--runs 3]

135m is SmolLM2: ours converted to 4.25 bits, llama.cpp's the same file at Q4_0. 1b is random weights of
Llama-3.2-1B's shape in both. Every run has servers of its own. A figure is the median over the runs; all
runs are kept with it in bench/results/serving.json, beside those of engines and rows that were not measured
this time. `--as before` keeps the figures of ours under that name.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.llama_cpp import tool
from bench.machine import Foreign, commit
from bench.models import UnavailableError, cache, smollm2
from bench.serving.amounts import QUICK, Amounts, Figures
from bench.serving.client import RefusedError
from bench.serving.plot import plot
from bench.serving.prompts import Prompts, alice_as_read_by
from bench.serving.rows import BEFORE, CONSTRAINED, GOALS, ROWS, SHAPES
from bench.serving.servers import OURS, THEIRS, running
from bench.speed_models import artifact, llama_file
from bench.speed_runs import output
from rockledge.runtime.processor import this_processor

TARGET = Path(__file__).parent.parent / "results" / "serving.json"

ROUNDS = {"135m": 2, "1b": 1}  # requests of every stream

Models = Callable[[str, str], Path]  # engine and shape to what it serves


def model(engine: str, shape: str, threads: int) -> Path:
    """What an engine serves for a shape; made into the cache when it is not there."""
    if engine == THEIRS:
        return llama_file(shape, "Q4_0", threads)
    if shape != "135m":
        return artifact(shape)
    target = cache() / "models" / "smollm2-135m-instant"
    if not target.exists():
        output([sys.executable, "-m", "rockledge", "quantize", smollm2(), "--instant", "-o", target])
    return target


def measure(
    row: str, shape: str, engines: Sequence[str], models: Models, prompts: Prompts, amounts: Amounts, at: Any
) -> dict[str, Any]:
    """All runs of a row by engine: their medians, the runs, and what others took of the machine. An engine
    that refuses what the row asks has the reason instead."""
    size = ROWS[row].size(amounts)
    found: dict[str, list[Figures]] = {engine: [] for engine in engines}
    reasons: dict[str, str] = {}
    foreign = Foreign()
    for number in range(at.runs):
        for engine in engines:
            if engine in reasons:
                continue
            with running(engine, models(engine, shape), size, at.threads) as server:
                try:
                    figures = asyncio.run(ROWS[row].measure(server, prompts.again(number), amounts))
                except (RefusedError, OSError, EOFError) as error:
                    reasons[engine] = f"{type(error).__name__}: {error}"
                    continue
            found[engine].append({name: round(value, 4) for name, value in figures.items()})
            print(f"  {number + 1} of {at.runs}: {engine} {found[engine][-1]}", file=sys.stderr, flush=True)
    share = foreign.share()
    return {
        engine: {"failed": reasons[engine]}
        if engine in reasons
        else {
            **{name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]},
            "runs": runs,
            "threads": at.threads,
            "taken_by_others": share,
            "commit": commit(),
        }
        for engine, runs in found.items()
    }


def table(rows: Mapping[str, Any]) -> str:
    """The rows for people: every figure by engine, then the goals."""
    lines = []
    for name, engines in rows.items():
        lines.append(name)
        figures = [
            name
            for one in engines.values()
            for name, value in one.items()
            if isinstance(value, float) and name != "taken_by_others"
        ]
        for figure in dict.fromkeys(figures):
            values = "".join(
                f"  {engine} {one[figure]:10.2f}" for engine, one in engines.items() if figure in one
            )
            lines.append(f"    {figure:28}{values}")
        lines += [
            f"    {engine} failed: {one['failed']}" for engine, one in engines.items() if "failed" in one
        ]
        for goal in GOALS:
            if name.rsplit(" ", 1)[0] == goal.row:
                value, met = goal.value(engines), goal.met(engines)
                word = "not measured" if met is None else "reached" if met else "MISSED"
                lines.append(f"  {word:12} {goal.text()}{'' if value is None else f': {value:.3f}'}")
    return "\n".join(lines)


def write(rows: Mapping[str, Any], target: Path) -> None:
    """Keeps the rows, in the table's order, and draws them."""
    order = [f"{row} {shape}" for row in ROWS for shape in SHAPES]
    rows = {name: rows[name] for name in order if name in rows}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps({"processor": this_processor().name, "rows": rows}, indent=1) + "\n")
    partial.replace(target)
    plot(rows, target.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None, models: Models | None = None) -> int:
    """Command line; see the module. `models` replaces what is served."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.serving", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument(
        "--constrained", action="store_true", help="only answers of a given form beside free ones"
    )
    parser.add_argument("--engines", nargs="+", choices=(OURS, THEIRS), default=[OURS, THEIRS])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--as", dest="name", choices=(OURS, BEFORE), default=OURS)
    parser.add_argument("--quick", action="store_true", help="small amounts, to see that everything works")
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args(arguments)
    rows: dict[str, Any] = json.loads(args.out.read_text())["rows"] if args.out.exists() else {}
    serve = models or (lambda engine, shape: model(engine, shape, args.threads))
    try:
        if THEIRS in args.engines:
            tool("llama-server")
        prompts = alice_as_read_by(serve(OURS, "135m"))
        for shape in args.shapes:
            for row in [f"constrained_{count}" for count in CONSTRAINED] if args.constrained else args.only:
                if shape not in ROWS[row].shapes:
                    continue
                name = f"{row} {shape}"
                print(name, file=sys.stderr, flush=True)
                amounts = QUICK if args.quick else Amounts(rounds=ROUNDS[shape])
                found = measure(row, shape, args.engines, serve, prompts, amounts, args)
                named = {args.name if engine == OURS else engine: one for engine, one in found.items()}
                rows[name] = {**rows.get(name, {}), **named}
                write(rows, args.out)
    except UnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
