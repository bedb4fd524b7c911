"""The accuracy table: our artifacts and llama.cpp's files of the same float weights, on the same tokens.

    python -m bench.accuracy [--model NAME ...] [--bits 4.25 ...] [--windows 118] [--quick] [--tokens 6144]
                             [--engine rockledge|llama.cpp] [--files Q4_K_M ...] [--artifact DIR ...]

Every divergence is to the float model: ours to the PyTorch reference, llama.cpp's to its own float32 run of
the same weights (`docs/measuring.md` shows how equal the two are). Engines run as they ship, with quantised
activations, and ours with its int8 cache. Sizes count all tensors. Finished rows are kept in the cache, so a
run that was ended goes on. Writes bench/results/accuracy.json and accuracy.png, and prints the goals.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from bench import llama_cpp
from bench.accuracy_models import MODELS, TableModel
from bench.accuracy_ours import ours
from bench.accuracy_plot import plot
from bench.accuracy_rows import Measured, Row, measured, remembered
from bench.accuracy_task import Task, prepare
from bench.accuracy_texts import WINDOW
from bench.goals import OURS, THEIRS, Goal, goals
from bench.llama_files import STANDARD, VARIANTS, LlamaFile, content_digest, importance_matrix
from bench.llama_files import make as make_file
from bench.models import UnavailableError, cache
from rockledge.errors import RockledgeError

RESULTS = Path(__file__).parent / "results"
WINDOWS = 118  # of 255 scored tokens each: 30,090
QUICK = 8
BUDGETS = (3.25, 3.5, 4.0, 4.25, 4.5, 5.0, 5.5, 8.0)
UNIFORM_BUDGETS = (3.5, 4.25)
FILES = {file.name: file for file in STANDARD + VARIANTS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table and the goals, writes the results; 1 when something needed is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description="accuracy side by side")
    parser.add_argument("--model", choices=sorted(MODELS), nargs="*", default=["smollm2-135m"])
    parser.add_argument("--bits", type=float, nargs="*", default=list(BUDGETS), help="our budgets")
    parser.add_argument("--engine", choices=(OURS, THEIRS), nargs="*", default=[THEIRS, OURS])
    parser.add_argument("--files", choices=FILES, nargs="*", default=list(FILES), help="llama.cpp's files")
    parser.add_argument("--tokens", type=int, help="calibration tokens of both engines")
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="ready artifacts to add")
    parser.add_argument("--windows", type=int, default=WINDOWS, help=f"windows of {WINDOW} tokens")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} windows, other results file")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    if args.quick:
        args.windows = QUICK
    try:
        for name in args.model:
            run(args, MODELS[name])
    except (UnavailableError, RockledgeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace, model: TableModel) -> None:
    """One model's part of the table; what other models have in the results file stays there."""
    task = prepare(model, args.windows, args.threads, args.tokens)
    target = RESULTS / ("accuracy-quick.json" if args.quick else "accuracy.json")
    measurements = {
        THEIRS: lambda: theirs(task, [FILES[name] for name in args.files]),
        OURS: lambda: ours(task, args.bits, UNIFORM_BUDGETS, args.artifact, args.tokens),
    }
    rows: list[Measured] = []
    judged: list[Goal] = []
    for engine in args.engine:
        for one in measurements[engine]():
            rows.append(one)
            judged = write(task, [done.row for done in rows], target, args.tokens)
    print(table(rows))
    print(goal_lines(judged))
    print(f"written to {target} and {target.with_suffix('.png').name}", file=sys.stderr)


def theirs(task: Task, files: Sequence[LlamaFile]) -> Iterator[Measured]:
    """llama.cpp's rows, by its own tools; files of equal content are measured once."""
    llama_cpp.tool("llama-perplexity")
    base = task.kept("-base.bin")
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        for file in files:
            settings = {
                **task.settings,
                "engine": THEIRS,
                "file": asdict(file),
                "imatrix": task.calibration.name,
            }
            yield remembered(settings, partial(_llama, task, file, Path(folder), base))
    base.unlink(missing_ok=True)


def _llama(task: Task, file: LlamaFile, folder: Path, base: Path) -> Measured:
    limits = {"window": WINDOW, "limit": len(task.windows), "threads": task.threads}
    matrix = importance_matrix(
        task.gguf,
        task.calibration,
        task.kept("-imatrix.gguf").with_name(f"{task.gguf.stem}-{task.calibration.stem}-imatrix.gguf"),
        task.threads,
    )
    target = folder / "model.gguf"
    print(f"{THEIRS} {file.name}", file=sys.stderr, flush=True)
    make_file(file, task.gguf, matrix, target, task.checkpoint.config.hidden, task.threads)

    def score() -> Measured:
        if not base.exists():
            print(f"{THEIRS} float reference run", file=sys.stderr, flush=True)
            fresh = base.with_suffix(".partial")
            llama_cpp.reference_run(task.gguf, task.text, fresh, **limits)
            tokens = llama_cpp.reference_tokens(fresh)
            if task.bos is not None:  # takes the first place as a window runs; the file has what stood there
                tokens[:, 0] = task.bos
            if tokens.tolist() != task.windows:
                raise UnavailableError("llama.cpp splits the text into other tokens; nothing to compare")
            fresh.replace(base)
        report = llama_cpp.divergence(target, task.text, base, **limits)
        size = llama_cpp.tensor_bytes(target)
        return measured(task.model.name, THEIRS, file.name, size, task.parameters, report)

    found = remembered({**task.settings, "engine": THEIRS, "content": content_digest(target)}, score)
    target.unlink()
    named = Row(**{**asdict(found.row), "name": file.name})
    return Measured(named, found.kl_mean_se_nats, found.reference_perplexity)


def write(task: Task, rows: Sequence[Row], target: Path, tokens: int | None = None) -> list[Goal]:
    """Merges the rows into the results, judges and plots everything that is there. `tokens`: what
    calibration was limited to."""
    target.parent.mkdir(exist_ok=True)
    body: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {"rows": [], "models": {}}
    new = {(row.model, row.engine, row.name) for row in rows}
    found = [Row(**row) for row in body["rows"]]
    found = [row for row in found if (row.model, row.engine, row.name) not in new] + list(rows)
    found.sort(
        key=lambda row: (list(MODELS).index(row.model), row.engine != OURS, row.bits_per_weight, row.name)
    )
    judged = goals(found)
    scored = len(task.windows) * (WINDOW - 1 - WINDOW // 2)
    about = {
        "about": task.model.about,
        "parameters": task.parameters,
        "windows": len(task.windows),
        "scored_tokens": scored,
        "texts": "Alice's Adventures in Wonderland, The Debian Administrator's Handbook "
        "(as many characters of each)",
        "calibration": "the built-in mix, for both engines"
        + ("" if tokens is None else f"; of it about {tokens:,} tokens"),
    }
    models = {**body["models"], task.model.name: about}
    content = {
        "window_tokens": WINDOW,
        "models": models,
        "rows": [asdict(row) for row in found],
        "goals": [{**asdict(goal), "met": goal.met} for goal in judged],
    }
    target.write_text(json.dumps(content, indent=1) + "\n")
    plot(found, target.with_suffix(".png"))
    return judged


def table(rows: Sequence[Measured]) -> str:
    """The rows as aligned text."""
    lines = [f"{'':<38}{'MB':>9}{'bits':>7}{'KL mean':>19}{'KL 99 %':>9}{'top-1':>8}{'PPL':>8}{'float':>8}"]
    for one in rows:
        row = one.row
        kl = f"{row.kl_mean_nats:.5f} ± {one.kl_mean_se_nats:.5f}"
        lines.append(
            f"{row.engine + ' ' + row.name:<38}{row.bytes / 1e6:>9.1f}{row.bits_per_weight:>7.3f}{kl:>19}"
            f"{row.kl_p99_nats:>9.4f}{row.top1_agreement:>8.1%}{row.perplexity:>8.2f}"
            f"{one.reference_perplexity:>8.2f}"
        )
    return "\n".join(lines)


def goal_lines(judged: Sequence[Goal]) -> str:
    """The goals as aligned text."""
    words = {True: "met", False: "MISSED", None: "not judged"}
    lines = []
    for goal in judged:
        numbers = " ".join("-" if n is None else f"{n:.5f}" for n in (goal.value, goal.limit))
        lines.append(f"{words[goal.met]:<11}{goal.model:<22}{goal.goal:<62}{numbers}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
